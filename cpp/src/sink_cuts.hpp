// Minimum cuts near a sink, shared by its sources.
//
// Problem. Where a flow is limited neither at its source nor at its sink, a search has to prove that it is a maximum. But
// what is scarce near a sink (the sink's column: class tokens of short texts, calibrated networks) is so for every source.
//
// A cut's sink side X bounds any source outside it. As it is, it holds other sources, and nodes of the second block that
// are in it or not by what one source happens to send there. So X is kept without the first two blocks: into X flows at
// most what its edges from later blocks carry, and through each node k of the second block at most what the source sends
// there, or what k's edges into X carry. Edges from nodes that the source does not reach are left out (causal networks:
// later sources reach less).
//
// Only where nothing was rounded: upper bounds must not depend on who solved what. O(n) a cut for a source that reaches what
// the last one reached, and O(|X|) more for each further node it reaches; X is small.
#pragma once

#include <cstdint>
#include <vector>

#include "attnflow/capacity.hpp"
#include "residual.hpp"
#include "solver.hpp"

namespace attnflow {

class SinkCuts {
   public:
    explicit SinkCuts(const CapacityIndex& capacities) : capacities_(capacities), net_(capacities.network()) {}

    /// Forgets the cuts of the sink before.
    void clear();
    /// An upper bound on the flow from the source of `terminals`, which reaches `reached`; `unbounded` where no cut applies.
    Units bound(const Terminals& terminals, const std::vector<Word>& reached);
    /// That bound was the answer.
    void confirm();
    /// Keeps the cut nearest the sink after a maximum flow, if it is a narrow one. For as long as keeping cuts pays.
    void keep(const Residual& residual, const Terminals& terminals, const std::vector<Word>& reached);

    std::size_t bytes() const;

   private:
    struct Cut {
        std::size_t link;                // from the sources' block to the second
        std::vector<Word> sink_side;     // without those two
        Units from_later;                // capacity from blocks after the second
        std::vector<Units> from_second;  // [position] from each node of the second
        std::vector<Word> reached;       // the last words of what the source reached that the two were measured for
        std::uint64_t used = 0;
    };
    static constexpr std::size_t most = 8;

    const Link* only_link(const Terminals& terminals) const;
    void measure(Cut& cut, const std::vector<Word>& reached);

    const CapacityIndex& capacities_;
    const Network& net_;
    std::vector<Cut> cuts_;
    Cut* best_ = nullptr;
    std::vector<Units> column_;
    std::vector<Word> news_;  // nodes that the source at hand reaches, and the last one did not
    std::uint64_t looked_for_ = 0, used_ = 0;
};

}  // namespace attnflow
