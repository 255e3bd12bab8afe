#include "agreement.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <map>
#include <stdexcept>
#include <tuple>

#include "attnflow/errors.hpp"

namespace attnflow::testing {
namespace {

using reference::Edge;
using reference::MaximumFlow;

std::vector<bool> indicator(std::size_t n_nodes, const std::vector<Node>& nodes) {
    std::vector<bool> set(n_nodes, false);
    for (const Node node : nodes) set[node] = true;
    return set;
}

Units saturating_sum(Units a, Units b) { return a >= unbounded - b ? unbounded : a + b; }

bool any_unbounded(const Network& network, const Query& query) {
    const std::vector<Edge> endless = reference::edges(network, reference::only_unbounded);
    for (const std::vector<Node>& sources : query.sources) {
        const std::vector<bool> reached = reference::reachable(endless, network.n_nodes(), sources);
        for (const std::vector<Node>& sinks : query.sinks)
            for (const Node sink : sinks)
                if (reached[sink]) return true;
    }
    return false;
}

// Whether sums of the capacities may be too large to solve exactly. Generous: the exact limits have tests of their own.
bool may_overflow(const Network& network, const Query& query) {
    double total = 0, entries = 1;
    bool integers = true;
    for (const Link& link : network.links()) {
        const bool integral = link.scalar == Scalar::int32 || link.scalar == Scalar::int64;
        integers = integers && integral;
        for (std::size_t j = 0; j < network.size(link.receiver); ++j)
            for (std::size_t k = 0; k < network.size(link.giver); ++k) {
                if (reference::quanta(link, j, k, reference::only_unbounded) == unbounded) continue;
                // 2^-962 quanta make the largest double 2^62 of them, and 2^-0 an integer.
                const double c = static_cast<double>(reference::quanta(link, j, k, integral ? 0 : -962));
                total += integral ? c : std::ldexp(c, 962);
                entries += 1;
            }
    }
    const double worst = total * entries * static_cast<double>(query.sinks.size());
    return integers ? worst > 0x1p58 : !std::isfinite(worst * 4);
}

bool all_exact(const Network& network, int exponent) {
    for (const Link& link : network.links())
        for (std::size_t j = 0; j < network.size(link.receiver); ++j)
            for (std::size_t k = 0; k < network.size(link.giver); ++k) {
                const auto offset = static_cast<std::int64_t>(j) - static_cast<std::int64_t>(k);
                if (link.diagonal() && offset != link.offset) continue;
                if (!reference::is_exact(link, j, k, exponent)) return false;
            }
    return true;
}

// Stops a solve that does not end. Everything here is solved in milliseconds, but by the twin, whose time does not count.
struct Deadline final : Monitor {
    using Clock = std::chrono::steady_clock;
    Clock::time_point start = Clock::now();
    void restart() { start = Clock::now(); }
    void tick(std::uint64_t, std::uint64_t) override {
        if (Clock::now() - start > std::chrono::seconds(20)) throw std::runtime_error("no end in sight after 20 s");
    }
};

// The twin's answers, kept: it is slow, and two algorithms are held against it.
class Twin {
   public:
    Twin(const Network& network, const Query& query) : network_(network), query_(query) {}

    const std::vector<Edge>& edges(int exponent) {
        const auto found = edges_.find(exponent);
        return found != edges_.end() ? found->second
                                     : edges_.emplace(exponent, reference::edges(network_, exponent)).first->second;
    }
    const std::vector<Node>& sources(std::size_t pair) const { return query_.sources[pair % query_.sources.size()]; }
    const std::vector<Node>& sinks(std::size_t pair) const { return query_.sinks[pair / query_.sources.size()]; }

    /// Its value is `unbounded` where a path is.
    const MaximumFlow& flow(int exponent, std::size_t pair) {
        const auto [at, is_new] = flows_.try_emplace({exponent, pair});
        if (!is_new) return at->second;
        try {
            at->second = reference::edmonds_karp(edges(exponent), network_.n_nodes(), sources(pair), sinks(pair));
        } catch (const UnboundedFlow&) {
            at->second.value = unbounded;
        }
        return at->second;
    }

   private:
    const Network& network_;
    const Query& query_;
    std::map<int, std::vector<Edge>> edges_;
    std::map<std::pair<int, std::size_t>, MaximumFlow> flows_;
};

// Complaints about one algorithm's answers.
class Judge {
   public:
    Judge(const Network& network, const Query& query, Twin& twin, std::string who, std::vector<std::string>& complaints)
        : network_(network), query_(query), twin_(twin), who_(std::move(who)), complaints_(complaints) {}

    void complain(const std::string& what) { complaints_.push_back(who_ + ": " + what); }

    void judge(const Answer& answer) {
        const int exponent = answer.quantum.exponent();
        const std::vector<Edge>& edges = twin_.edges(exponent);
        const bool exact = all_exact(network_, exponent);
        for (std::size_t pair = 0; pair < query_.sources.size() * query_.sinks.size(); ++pair) {
            const std::string at = "pair " + std::to_string(pair) + ": ";
            const Units value = answer.value[pair], upper = answer.upper[pair];
            const MaximumFlow& twin = twin_.flow(exponent, pair);
            if (value != twin.value)
                complain(at + "value " + std::to_string(value) + ", the twin has " + std::to_string(twin.value));
            if (value > answer.quantum.flow_limit()) complain(at + "the value exceeds Quantum::flow_limit()");
            if (nodes_of(network_, &answer.source_side[pair * network_.n_words()]) != twin.source_side)
                complain(at + "the cut is not the twin's");
            const std::int32_t code =
                bottleneck_by_definition(network_, edges, twin_.sources(pair), twin_.sinks(pair), twin);
            if (answer.bottleneck[pair] != code)
                complain(at + "bottleneck " + std::to_string(answer.bottleneck[pair]) + ", by definition " +
                         std::to_string(code));
            if (upper < value) complain(at + "upper bound below the value");
            if (exact && upper != value) complain(at + "nothing was rounded, but upper bound and value differ");
            if (!exact && value <= upper) judge_interval(exponent, value, upper, pair);
        }
    }

    void judge_plain(const Answer& answer, const Answer& plain) {
        if (plain.value != answer.value) complain("other values when no cuts are asked for");
        if (plain.upper != answer.upper) complain("other upper bounds when no cuts are asked for");
        if (plain.bottleneck != answer.bottleneck) complain("other bottlenecks when no cuts are asked for");
    }

    void judge_flows(const Answer& answer) {
        std::map<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>, Units> capacity;
        for (const Edge& edge : reference::edges(network_, answer.quantum.exponent()))
            capacity[{edge.link, edge.receiver, edge.giver}] = edge.capacity;
        std::vector<Units> balance(network_.n_nodes(), 0);
        for (const EdgeFlow& edge : answer.flows) {
            const auto found = capacity.find({edge.link, edge.receiver, edge.giver});
            if (found == capacity.end()) return complain("a flow on an edge that is not there, or named twice");
            if (edge.flow <= 0 || edge.flow > found->second) complain("a flow that is not positive, or too large");
            capacity.erase(found);
            const Link& link = network_.links()[edge.link];
            balance[network_.first_node(link.giver) + edge.giver] -= edge.flow;
            balance[network_.first_node(link.receiver) + edge.receiver] += edge.flow;
        }
        Units out = 0, in = 0;
        const std::vector<bool> source = indicator(network_.n_nodes(), query_.sources[0]);
        const std::vector<bool> sink = indicator(network_.n_nodes(), query_.sinks[0]);
        for (Node node = 0; node < network_.n_nodes(); ++node) {
            if (source[node])
                out -= balance[node];
            else if (sink[node])
                in += balance[node];
            else if (balance[node] != 0)
                complain("node " + std::to_string(node) + " keeps " + std::to_string(balance[node]));
        }
        if (out != answer.value[0] || in != answer.value[0]) complain("the edge flows have another value");
    }

   private:
    // The maximum flow at a quantum 2^finer times smaller lies in [value, upper], and so does the one of the capacities
    // as they are: it is the limit.
    void judge_interval(int exponent, Units value, Units upper, std::size_t pair) {
        const auto digits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(std::max<Units>(upper, 1))));
        const int finer = std::min(60 - digits, 50);
        if (finer < 1) return;
        // Unbounded here says more than 2^62 of the finer quanta: beyond the upper bound.
        const Units close = twin_.flow(exponent + finer, pair).value;
        const std::string at = "pair " + std::to_string(pair) + ": ";
        if (close < value << finer) complain(at + "the value exceeds the maximum flow in the given capacities");
        if (close > upper << finer) complain(at + "the maximum flow in the given capacities exceeds the upper bound");
    }

    const Network& network_;
    const Query& query_;
    Twin& twin_;
    std::string who_;
    std::vector<std::string>& complaints_;
};

}  // namespace

std::vector<bool> nodes_of(const Network& network, const Word* set) {
    std::vector<bool> nodes;
    for (std::size_t b = 0; b < network.n_blocks(); ++b)
        for (std::size_t i = 0; i < network.size(b); ++i) nodes.push_back(test_bit(set + network.first_word(b), i));
    return nodes;
}

std::int32_t bottleneck_by_definition(const Network& network, const std::vector<Edge>& edges,
                                      const std::vector<Node>& sources, const std::vector<Node>& sinks,
                                      const MaximumFlow& flow) {
    const std::size_t n = network.n_nodes();
    const std::vector<bool> source = indicator(n, sources), sink = indicator(n, sinks);
    const std::vector<bool> reached = reference::reachable(edges, n, sources);
    const std::vector<bool> reaching = reference::reachable(edges, n, sinks, true);
    Units out = 0, in = 0;
    std::vector<Units> share(network.links().size(), 0);
    for (const Edge& edge : edges) {
        if (source[edge.from] && !source[edge.to] && reaching[edge.to]) out = saturating_sum(out, edge.capacity);
        if (sink[edge.to] && !sink[edge.from] && reached[edge.from]) in = saturating_sum(in, edge.capacity);
        if (flow.source_side[edge.from] && !flow.source_side[edge.to]) share[edge.link] += edge.capacity;
    }
    if (flow.value == 0) return nowhere;
    if (flow.value == out) return at_source;
    if (flow.value == in) return at_sink;
    return static_cast<std::int32_t>(std::max_element(share.begin(), share.end()) - share.begin());
}

std::vector<std::string> disagreements(const Network& network, const Query& query, unsigned threads) {
    std::vector<std::string> complaints;
    const bool endless = any_unbounded(network, query);
    Twin twin(network, query);
    struct Way {
        const char* name;
        Algorithm algorithm;
        Sharing sharing;
    };
    for (const auto& [name, algorithm, sharing] :
         {Way{"dinic", Algorithm::dinic, Sharing::automatic}, Way{"dinic, shared", Algorithm::dinic, Sharing::always},
          Way{"push_relabel", Algorithm::push_relabel, Sharing::automatic}}) {
        Judge judge(network, query, twin, name, complaints);
        Options options;
        options.algorithm = algorithm;
        options.sharing = sharing;
        options.threads = threads;
        options.bottlenecks = options.cuts = options.check = true;
        Deadline deadline;
        options.monitor = &deadline;
        Options plain;  // nothing on request: values that are proved by their bounds need no flow then
        plain.algorithm = algorithm;
        plain.sharing = sharing;
        plain.threads = threads;
        plain.bottlenecks = true;
        plain.monitor = &deadline;
        try {
            const Answer answer = solve(network, query, options);
            if (endless) {
                judge.complain("a value, though a source reaches a sink through unbounded edges alone");
                continue;
            }
            judge.judge(answer);
            deadline.restart();
            judge.judge_plain(answer, solve(network, query, plain));
            options.flows = true;
            deadline.restart();
            judge.judge_flows(solve(network, {{query.sources[0]}, {query.sinks[0]}}, options));
        } catch (const UnboundedFlow&) {
            if (!endless) judge.complain("calls a bounded flow unbounded");
        } catch (const CapacityOverflow& error) {
            if (!may_overflow(network, query)) judge.complain(std::string("refuses what fits: ") + error.what());
        } catch (const std::exception& error) {
            judge.complain(std::string("throws: ") + error.what());
        }
    }
    return complaints;
}

}  // namespace attnflow::testing
