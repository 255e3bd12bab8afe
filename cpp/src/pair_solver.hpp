// One pair after the other: which algorithm finds a flow, and what it takes over from earlier pairs.
//
// Sources of a sink have most of their way in common, and what a thread found for some makes others faster. There are, from
// the fastest to the slowest:
//
//   1. columns up to the sink (columns.hpp), where a chain of layers leads there;
//   2. columns up to the end of such a chain (an encoder below a decoder, layers below a pool), and from there one flow
//      that sources share (shared_flow.hpp), whose feeds are what columns may deliver;
//   3. one flow that sources share from right behind them;
//   4. a search from nothing.
//
// What columns lack of the bound, a search adds. Where they seldom reach it, they are left out, and 3 and 4 are tried in
// turn. Each is exact whatever was there before, so the choice changes no answer.
#pragma once

#include <optional>
#include <vector>

#include "attnflow/max_flow.hpp"
#include "columns.hpp"
#include "dinic.hpp"
#include "push_relabel.hpp"
#include "shared_flow.hpp"

namespace attnflow {

// Which of two ways to go: both are tried in turn, and the cheaper one is gone until the next trial. Trials become rarer
// as long as they come out alike: setting up the second way costs as much as a few sources.
class Trial {
   public:
    /// Whether to go the second way this time.
    bool next();
    void took(std::uint64_t cost);

   private:
    static constexpr std::uint64_t first_way = 1, tried = 4;  // so often; then the second
    static constexpr std::uint64_t first_period = 64;
    // Half, so that the first trial is repeated after a whole one either way: early sources of causal networks reach little.
    std::uint64_t turn_ = 0, period_ = first_period / 2, cost_[2] = {};
    bool second_ = false;
};

class PairSolver {
   public:
    /// For `n_sources` of each sink.
    PairSolver(const CapacityIndex& capacities, Residual& residual, Levels& levels, const Options& options,
               std::size_t n_sources);

    /// Another sink from now on; `residual` is left empty.
    void enter_sink();

    /// The sum of what leaves the sources into nodes of `towards`; nothing where that is not at hand.
    std::optional<Units> leaving(const Terminals& terminals, const std::vector<Word>& towards);

    /// The value of a maximum flow, at most `bound`. It is left in the residual network, unless it lies in columns and
    /// nobody asks for it; `for_cut`: somebody does. `into_sink`: what the sinks can take from nodes that the sources reach.
    Units solve(const Terminals& terminals, const std::vector<Word>& reached, Units into_sink, Units bound,
                bool for_cut, Pulse& pulse);

    /// What is left of the shared flow lies in the residual network beside the pair's own, until it is taken away.
    bool taken_over() const { return taken_over_; }
    void leave_own(Pulse& pulse) { shared_.leave_own(residual_, pulse); }

    const Counters& counters() const { return push_relabel_ ? push_relabel_->counters : dinic_.counters; }
    std::size_t bytes() const { return (columns_ ? columns_->bytes() : 0) + shared_.bytes(); }

   private:
    bool enter_columns(const Terminals& terminals);
    Units along_columns(const Terminals& terminals, const std::vector<Word>& reached, Units into_sink, Units bound,
                        bool for_cut, Pulse& pulse);

    const Options& options_;
    std::size_t n_sources_;
    Residual& residual_;
    Levels& levels_;
    std::optional<PushRelabel> push_relabel_;
    Dinic dinic_;
    std::optional<ColumnFlow> columns_;
    SharedFlow shared_;
    Trial trial_;  // of taking over the shared flow
    bool taken_over_ = false;
};

}  // namespace attnflow
