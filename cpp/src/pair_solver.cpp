#include "pair_solver.hpp"

namespace attnflow {

bool Trial::next() {
    if (turn_ == period_) {
        turn_ = 0;
        cost_[0] = cost_[1] = 0;
    }
    return ++turn_ <= tried ? turn_ > first_way : second_;
}

void Trial::took(std::uint64_t cost) {
    if (turn_ > tried || turn_ == first_way + 1) return;  // the second way's first time includes setting it up
    cost_[turn_ > first_way ? 1 : 0] += cost;
    if (turn_ < tried) return;
    const bool second = 4 * cost_[1] < 3 * (tried - first_way - 1) * cost_[0];  // clearly cheaper, one for one
    period_ = second == second_ ? period_ * 2 : first_period;
    second_ = second;
}

PairSolver::PairSolver(const CapacityIndex& capacities, Residual& residual, Levels& levels, const Options& options,
                       std::size_t n_sources)
    : options_(options), n_sources_(n_sources), residual_(residual), levels_(levels), shared_(capacities) {
    if (options.algorithm == Algorithm::push_relabel)
        push_relabel_.emplace();
    else if (options.sharing != Sharing::always)
        columns_.emplace(capacities);
}

void PairSolver::enter_sink() { shared_.enter_sink(residual_); }

// Whether there are columns for sources of this kind.
bool PairSolver::enter_columns(const Terminals& terminals) {
    if (!columns_ || terminals.source_nodes.size() != 1) return false;
    columns_->enter(residual_.network().block_of(terminals.source_nodes[0]), terminals.sink_nodes);
    return true;
}

std::optional<Units> PairSolver::leaving(const Terminals& terminals, const std::vector<Word>& towards) {
    if (!enter_columns(terminals)) return std::nullopt;
    return columns_->leaving(terminals.source_nodes[0], towards);
}

Units PairSolver::solve(const Terminals& terminals, const std::vector<Word>& reached, Units into_sink, Units bound,
                        bool for_cut, Pulse& pulse) {
    taken_over_ = false;
    if (push_relabel_) return push_relabel_->solve(residual_, levels_, terminals, bound, pulse);
    Units value = 0;
    if (bound > 0 && enter_columns(terminals) && columns_->promising())
        value = along_columns(terminals, reached, into_sink, bound, for_cut, pulse);
    if (taken_over_) return value;
    if (value == bound) {
        if (value == 0 && for_cut) shared_.clear(residual_);  // an empty flow is wanted
        return value;
    }
    if (columns_ && (value > 0 || n_sources_ < SharedFlow::fewest_sources)) {
        shared_.clear(residual_);
        return value + dinic_.solve(residual_, levels_, terminals, bound - value, pulse);
    }
    const std::uint64_t steps = dinic_.counters.steps;
    taken_over_ = !columns_ || trial_.next();
    if (!taken_over_) shared_.clear(residual_);
    value = taken_over_ ? shared_.solve(residual_, levels_, dinic_, terminals, into_sink, bound, pulse)
                        : dinic_.solve(residual_, levels_, terminals, bound, pulse);
    trial_.took(dinic_.counters.steps - steps);
    return value;
}

// A flow along columns that reaches the bound is the answer, and is not built unless it is asked for: that what fill()
// accounts for is a flow is tested where it is loaded (kernel.columns, and every solve with check).
Units PairSolver::along_columns(const Terminals& terminals, const std::vector<Word>& reached, Units into_sink,
                                Units bound, bool for_cut, Pulse& pulse) {
    const bool early = columns_->early_end().has_value();
    if (early) {
        const std::vector<Units>* feeds = shared_.feeds_in(*columns_->early_end(), columns_->chain(), residual_,
                                                           levels_, dinic_, terminals, into_sink, pulse);
        if (feeds == nullptr) {
            columns_->give_up();
            return 0;
        }
        columns_->demand(*feeds);
    }
    const bool keep = options_.cuts || options_.check || options_.flows || for_cut;
    const Units value = columns_->fill(terminals.source_nodes[0], reached, bound, keep);
    if ((value == bound && !keep) || !columns_->can_load()) return value;
    if (!early) shared_.clear(residual_);
    columns_->load(residual_);
    if (!early) return value;
    taken_over_ = true;
    return value + shared_.go_on(columns_->delivered(), residual_, levels_, dinic_, terminals, bound - value, pulse);
}

}  // namespace attnflow
