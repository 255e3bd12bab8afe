// Many sources, many sinks, one network: what is shared, what is bounded, and who does what.
//
// Shared by all pairs: the capacities and their bits (capacity.hpp). Shared by all sources of a sink: the set of nodes
// that reach it. Per thread: one residual network, undone after each pair, one set of levels, one solver, and what was
// learned about the sink at hand (pair_solver.hpp, sink_cuts.hpp).
//
// Before a pair is solved it is bounded by two cuts that cost one column and one row: what leaves the source towards
// nodes that reach the sink, and what enters the sink from nodes the source reaches. On real attention the answer nearly
// always equals one of them; a solve that gets there stops without a last search, and its bottleneck is known.
//
// Where edges were dropped, all that is about the kept ones, and the upper bound of the whole network is found apart, once a
// pair is solved (dropped.hpp).
//
// Each thread works through a stretch of neighbouring pairs (stretches.hpp). What a thread learned from earlier
// pairs makes later ones faster, and changes no answer: a maximum is a maximum, the minimum cut nearest the source is
// one. The calling thread works too, and is the only one that talks to the monitor.

#include "attnflow/max_flow.hpp"

#include <algorithm>
#include <bit>
#include <mutex>
#include <numeric>
#include <optional>
#include <string>

#include "attnflow/certificate.hpp"
#include "attnflow/errors.hpp"
#include "crew.hpp"
#include "dropped.hpp"
#include "pair_solver.hpp"
#include "sink_cuts.hpp"
#include "stretches.hpp"
#include "terminals.hpp"

namespace attnflow {
namespace {

void validate(const Network& net, const Query& query, const Options& options) {
    check_sets(net, query.sources, "source");
    check_sets(net, query.sinks, "sink");
    if (options.flows && query.sources.size() * query.sinks.size() != 1)
        throw InvalidArgument("edge flows are kept for one source and one sink, not for " +
                              std::to_string(query.sources.size()) + " x " + std::to_string(query.sinks.size()));
    for (std::size_t t = 0; t < query.sinks.size(); ++t) {
        const std::vector<Word> sinks = node_set(net, query.sinks[t]);
        for (std::size_t s = 0; s < query.sources.size(); ++s)
            for (const Node node : query.sources[s])
                if (contains(net, sinks, node))
                    throw InvalidArgument("node " + std::to_string(net.position_of(node)) + " of block " +
                                          std::to_string(net.block_of(node)) + " is both in source " +
                                          std::to_string(s) + " and in sink " + std::to_string(t));
    }
}

struct Job {
    const Network& network;
    const CapacityIndex& capacities;
    const Dropped& dropped;
    const Query& query;
    const Options& options;
    Answer& answer;
    std::vector<std::size_t> order;  // of the sources
    Stretches pairs;                 // sink by sink, each with all sources
    Crew crew;
};

// Neighbours one after the other: they share columns. In causal networks the last first: what one reaches, the next one
// reaches too, and more.
std::vector<std::size_t> order_of_sources(const CapacityIndex& capacities, const Query& query, Pulse& pulse) {
    std::vector<std::size_t> order(query.sources.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return query.sources[a][0] < query.sources[b][0]; });
    const auto n_reached = [&](std::size_t source) {
        std::vector<Word> reached;
        nodes_reached(capacities, node_set(capacities.network(), query.sources[source]), reached, pulse);
        std::size_t n = 0;
        for (const Word word : reached) n += static_cast<std::size_t>(std::popcount(word));
        return n;
    };
    if (n_reached(order.back()) < n_reached(order.front())) std::reverse(order.begin(), order.end());
    return order;
}

class Worker {
   public:
    Worker(Job& job, Pulse& pulse)
        : job_(job),
          net_(job.network),
          capacities_(job.capacities),
          dropped_(job.dropped),
          pulse_(pulse),
          residual_(capacities_),
          levels_(net_, pulse),
          solver_(capacities_, residual_, levels_, job.options, job.query.sources.size()),
          cuts_(capacities_) {
        if (!dropped_.any()) return;
        everyone_.assign(net_.n_words(), 0);
        for (std::size_t b = 0; b < net_.n_blocks(); ++b)
            for (std::size_t w = 0; w < net_.words(b); ++w)
                everyone_[net_.first_word(b) + w] = word_of_all(w, net_.size(b));
    }

    void run(unsigned thread) {
        const std::uint64_t n_sources = job_.query.sources.size();
        while (const std::optional<std::uint64_t> pair = job_.pairs.next(thread)) {
            const std::size_t sink = *pair / n_sources, source = job_.order[*pair % n_sources];
            if (terminals_.sink_nodes.empty() || sink != sink_) enter_sink(sink);
            solve_pair(sink * n_sources + source, source);
            job_.crew.one_more_done();
            pulse_.check();
        }
    }

    const Counters& counters() const { return solver_.counters(); }
    std::size_t bytes() const { return residual_.bytes() + solver_.bytes() + cuts_.bytes(); }

   private:
    void enter_sink(std::size_t sink) {
        sink_ = sink;
        terminals_.sink_nodes = job_.query.sinks[sink];
        terminals_.sinks = node_set(net_, terminals_.sink_nodes);
        reaching_ = nodes_reaching(capacities_, terminals_.sinks, pulse_);
        givers_reached_.clear();
        solver_.enter_sink();
        cuts_.clear();
        if (!dropped_.any()) return;
        without_sinks_ = everyone_;
        for (std::size_t w = 0; w < net_.n_words(); ++w) without_sinks_[w] &= ~terminals_.sinks[w];
        all_into_sinks_ = whole(into_sinks(everyone_), without_sinks_);
    }

    // What leaves the sources into nodes of `towards`; what enters the sinks from nodes of `from`.
    Bound out_of_sources(const std::vector<Word>& towards) const {
        return out_of(capacities_, terminals_.source_nodes, terminals_.sources, towards);
    }
    Bound into_sinks(const std::vector<Word>& from) const {
        return into(capacities_, terminals_.sink_nodes, terminals_.sinks, from);
    }

    // What leaves the sources towards all that reaches the sinks. Where capacities are exact, a sum is all there is to know.
    Bound leaving_sources() {
        if (capacities_.all_exact())
            if (const std::optional<Units> sum = solver_.leaving(terminals_, reaching_)) return {*sum, 0};
        return out_of_sources(reaching_);
    }

    // Of all edges that leave a set of nodes, dropped ones included, given those that were kept; `enough`: more is not of
    // interest.
    Units whole(const Bound& kept, const std::vector<Word>& source_side, Units enough = unbounded) const {
        const Units units = saturating_sum(kept.units, static_cast<Units>(kept.rounded + capacities_.n_vanished()));
        return units >= enough ? enough : std::min(enough, saturating_sum(units, dropped_.across(source_side)));
    }

    // The last answer, as long as sources reach the same givers of the sinks.
    Bound into_sinks_from_reached() {
        bool same = !givers_reached_.empty();
        for (const Node node : terminals_.sink_nodes)
            for (const std::uint32_t e : net_.links_into(net_.block_of(node))) {
                const std::size_t first = net_.first_word(net_.links()[e].giver);
                for (std::size_t w = first; same && w < first + net_.words(net_.links()[e].giver); ++w)
                    same = reached_[w] == givers_reached_[w];
            }
        if (!same) {
            from_reached_ = into_sinks(reached_);
            givers_reached_ = reached_;
        }
        return from_reached_;
    }

    // Bounds the flow through all edges, dropped ones included, by the candidates that dropped.hpp names. `cut`: nearest
    // the sources, what explore() found, where the flow is limited at neither end.
    Units upper_of_all(const Bound& out, const Bound& in, const CutCapacity* cut) {
        Units least = std::min(all_into_sinks_, whole(out_of_sources(everyone_), terminals_.sources));
        const auto consider = [&](const Bound& kept, auto&& word) {
            side_.resize(net_.n_words());
            for (std::size_t w = 0; w < side_.size(); ++w) side_[w] = word(w);
            least = whole(kept, side_, least);
        };
        consider(out, [&](std::size_t w) { return terminals_.sources[w] | (everyone_[w] & ~reaching_[w]); });
        consider(in, [&](std::size_t w) { return reached_[w] & ~terminals_.sinks[w]; });
        if (cut == nullptr) return least;
        least = std::min(least, saturating_sum(saturating_sum(cut->units, static_cast<Units>(cut->rounded)),
                                               dropped_.across(levels_.visited())));
        const std::vector<Word> sink_side = nodes_reaching(residual_, terminals_.sinks);
        for (std::size_t w = 0; w < side_.size(); ++w) side_[w] = everyone_[w] & ~sink_side[w];
        const CutCapacity last = cut_capacity(capacities_, side_);
        return std::min(least, saturating_sum(saturating_sum(last.units, static_cast<Units>(last.rounded)),
                                              dropped_.across(side_)));
    }

    // Explores everything the sources reach in the residual network: after a maximum flow, the source side of the
    // minimum cut nearest the source.
    const std::vector<Word>& explore() {
        residual_.set_scale(CapacityIndex::n_scales - 1);
        levels_.explore(residual_, terminals_.sources);
        return levels_.visited();
    }

    // The same cut from Dinic's last search, which found no way on: without what the sources reach and leads nowhere.
    const std::vector<Word>& searched() {
        side_.resize(net_.n_words());
        for (std::size_t w = 0; w < side_.size(); ++w) side_[w] = levels_.visited()[w] & reached_[w];
        return side_;
    }

    void solve_pair(std::uint64_t pair, std::size_t source) {
        const Options& options = job_.options;
        terminals_.source_nodes = job_.query.sources[source];
        terminals_.sources = node_set(net_, terminals_.source_nodes);
        residual_.reset();

        const Bound out = leaving_sources();
        nodes_reached(capacities_, terminals_.sources, reached_, pulse_);
        const Bound in = into_sinks_from_reached();
        terminals_.useless.resize(net_.n_words());
        for (std::size_t w = 0; w < net_.n_words(); ++w) terminals_.useless[w] = ~(reached_[w] & reaching_[w]);
        const Units at_terminals = std::min(out.units, in.units),
                    bound = std::min(at_terminals, cuts_.bound(terminals_, reached_));
        const bool cut_wanted = (options.bottlenecks || dropped_.any()) && bound < at_terminals;
        const Units value = solver_.solve(terminals_, reached_, in.units, bound, cut_wanted, pulse_);
        if (value > capacities_.quantum().flow_limit())
            throw UnboundedFlow("source " + std::to_string(source) + " (" + describe(net_, terminals_.source_nodes) +
                                ") reaches sink " + std::to_string(sink_) + " (" +
                                describe(net_, terminals_.sink_nodes) + ") through unbounded edges alone");

        const bool at_terminal = value == at_terminals, known = value == bound;
        const bool need_cut =
            options.cuts || options.check || (!at_terminal && (!known || options.bottlenecks || dropped_.any()));
        if (known && !at_terminal) cuts_.confirm();
        CutCapacity cut;
        if (need_cut) {
            const bool as_found = !known && options.algorithm != Algorithm::push_relabel && !options.cuts &&
                                  !options.check && !dropped_.any();
            const std::vector<Word>& source_side = as_found ? searched() : explore();
            if (options.cuts)
                std::copy(source_side.begin(), source_side.end(),
                          job_.answer.source_side.begin() + static_cast<std::ptrdiff_t>(pair * net_.n_words()));
            if (!at_terminal) cut = cut_capacity(capacities_, source_side);
        }
        if (need_cut && !at_terminal && cut.units != value)
            throw CertificateFailure("the flow is " + std::to_string(value) + ", but the cut has capacity " +
                                     std::to_string(cut.units));
        const std::uint64_t rounded = !at_terminal         ? cut.rounded
                                      : value == out.units ? out.rounded + capacities_.n_vanished()
                                                           : in.rounded + capacities_.n_vanished();
        if (solver_.taken_over() && (!known || cut_wanted || options.check || options.flows)) solver_.leave_own(pulse_);
        if (!known) cuts_.keep(residual_, terminals_, reached_);
        job_.answer.value[pair] = value;
        job_.answer.upper[pair] =
            dropped_.any() ? upper_of_all(out, in, at_terminal ? nullptr : &cut) : value + static_cast<Units>(rounded);
        if (options.bottlenecks)
            job_.answer.bottleneck[pair] =
                value == 0           ? static_cast<std::int32_t>(nowhere)
                : value == out.units ? static_cast<std::int32_t>(at_source)
                : value == in.units
                    ? static_cast<std::int32_t>(at_sink)
                    : static_cast<std::int32_t>(std::max_element(cut.by_link.begin(), cut.by_link.end()) -
                                                cut.by_link.begin());
        if (options.check || options.flows) {
            std::vector<EdgeFlow> flows;
            if (value > 0) flows = residual_.flows();  // else perhaps the shared flow, untouched
            if (options.check)
                check_certificate(capacities_, flows, terminals_.source_nodes, terminals_.sink_nodes, value,
                                  levels_.visited());
            std::erase_if(flows, [](const EdgeFlow& edge) { return edge.flow == 0; });
            if (options.flows) job_.answer.flows = std::move(flows);
        }
    }

    Job& job_;
    const Network& net_;
    const CapacityIndex& capacities_;
    const Dropped& dropped_;
    Pulse& pulse_;
    Residual residual_;
    Levels levels_;
    PairSolver solver_;
    Terminals terminals_;
    std::size_t sink_ = 0;
    std::vector<Word> reaching_, reached_;
    std::vector<Word> givers_reached_;  // when from_reached_ was added up; empty: not for this sink
    Bound from_reached_;
    SinkCuts cuts_;
    std::vector<Word> side_;                      // of a cut
    std::vector<Word> everyone_, without_sinks_;  // where something was dropped
    Units all_into_sinks_ = 0;
};

}  // namespace

Answer solve(const Network& network, const Query& given, const Options& options) {
    validate(network, given, options);
    Query query = given;  // a node named twice in a set counts once
    for (std::vector<std::vector<Node>>* sets : {&query.sources, &query.sinks})
        for (std::vector<Node>& nodes : *sets) make_set(nodes);
    const std::uint64_t pairs = std::uint64_t{query.sources.size()} * query.sinks.size();
    Reporter reporter(options.monitor, pairs);
    const Pause pause = [&] { reporter.report(0); };
    constexpr std::uint64_t few_edges = 1 << 18;  // read in less time than a thread takes to start
    const unsigned readers = network.n_edges() < few_edges ? 1 : std::max(1U, options.threads);
    const CapacitySurvey survey(network, pause, readers);
    Answer answer;
    answer.quantum = quantum_for(network, survey, query.sinks);
    const CapacityIndex capacities(network, survey, answer.quantum, pause, readers);
    const Dropped dropped(capacities);

    answer.value.assign(pairs, 0);
    answer.upper.assign(pairs, 0);
    if (options.bottlenecks) answer.bottleneck.assign(pairs, nowhere);
    if (options.cuts) answer.source_side.assign(pairs * network.n_words(), 0);
    answer.statistics.algorithm = options.algorithm == Algorithm::automatic ? Algorithm::dinic : options.algorithm;
    answer.statistics.edges = network.n_edges();
    answer.statistics.index_bytes = capacities.bytes() + dropped.bytes();
    answer.statistics.threads = static_cast<unsigned>(std::min<std::uint64_t>(std::max(1U, options.threads), pairs));

    Job job{network,       capacities, dropped, query, options, answer, {}, Stretches(pairs, answer.statistics.threads),
            Crew(reporter)};
    job.order = order_of_sources(capacities, query, job.crew.pulse());
    std::mutex mutex;
    answer.statistics.threads = job.crew.work(answer.statistics.threads, [&](unsigned thread, Pulse& pulse) {
        Worker worker(job, pulse);
        worker.run(thread);
        const std::scoped_lock lock(mutex);
        answer.statistics.searches += worker.counters().searches;
        answer.statistics.augmentations += worker.counters().augmentations;
        answer.statistics.touched += worker.counters().touched;
        answer.statistics.workspace_bytes += worker.bytes();
    });
    reporter.finish();
    return answer;
}

}  // namespace attnflow
