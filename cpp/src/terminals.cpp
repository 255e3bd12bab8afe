#include "terminals.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attnflow/errors.hpp"

namespace attnflow {

std::vector<Word> node_set(const Network& net, const std::vector<Node>& nodes) {
    std::vector<Word> set(net.n_words(), 0);
    for (const Node node : nodes) {
        const std::uint32_t block = net.block_of(node);
        set_bit(set.data() + net.first_word(block), node - net.first_node(block));
    }
    return set;
}

bool contains(const Network& net, const std::vector<Word>& set, Node node) {
    const std::uint32_t block = net.block_of(node);
    return test_bit(set.data() + net.first_word(block), node - net.first_node(block));
}

std::string describe(const Network& net, const std::vector<Node>& nodes) {
    if (nodes.size() > 1) return "a set of " + std::to_string(nodes.size()) + " nodes";
    return "node " + std::to_string(net.position_of(nodes[0])) + " of block " + std::to_string(net.block_of(nodes[0]));
}

void check_sets(const Network& net, const std::vector<std::vector<Node>>& sets, const std::string& what) {
    if (sets.empty()) throw InvalidArgument("there are no " + what + "s; at least one is needed");
    for (std::size_t i = 0; i < sets.size(); ++i) {
        if (sets[i].empty()) throw InvalidArgument(what + " " + std::to_string(i) + " is an empty set of nodes");
        for (const Node node : sets[i])
            if (node >= net.n_nodes())
                throw InvalidArgument(what + " " + std::to_string(i) + " names node " + std::to_string(node) +
                                      ", but there are " + std::to_string(net.n_nodes()));
    }
}

void make_set(std::vector<Node>& nodes) {
    std::sort(nodes.begin(), nodes.end());
    nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
}

Quantum quantum_for(const Network& net, const CapacitySurvey& survey, const std::vector<std::vector<Node>>& sinks) {
    double bound = 0, edges = 1;
    for (const std::vector<Node>& sink : sinks) {
        double into = 0, edges_into = 0;
        for (const Node node : sink)
            for (const std::uint32_t e : net.links_into(net.block_of(node))) {
                const Link& link = net.links()[e];
                into += survey.row_sum[net.first_row(e) + net.position_of(node)];
                edges_into += link.diagonal() ? 1 : net.size(link.giver);
            }
        bound = std::max(bound, into);
        edges = std::max(edges, edges_into);
    }
    if (std::isinf(bound)) return Quantum(survey.total, edges, survey.integers);
    if (bound == 0) {  // no flow at all; but cuts are looked for, at the scale of the capacities as far as that goes
        const double most = survey.integers ? 0x1p60 : std::numeric_limits<double>::max() / 4;
        return Quantum(std::min(survey.total, most), 1, survey.integers);
    }
    return Quantum(bound, 1, survey.integers);
}

Bound out_of(const CapacityIndex& capacities, const std::vector<Node>& nodes, const std::vector<Word>& set,
             const std::vector<Word>& towards) {
    const Network& net = capacities.network();
    Bound bound;
    for (const Node node : nodes) {
        const std::uint32_t block = net.block_of(node);
        const std::size_t k = node - net.first_node(block);
        for (const std::uint32_t e : net.links_out_of(block)) {
            const Link& link = net.links()[e];
            const std::size_t first = net.first_word(link.receiver);
            const auto add = [&](std::size_t j) {
                if (!test_bit(&set[first], j)) bound.add(capacities, e, j, k);
            };
            if (link.diagonal()) {
                const std::int64_t j = static_cast<std::int64_t>(k) + link.offset;
                if (j >= 0 && j < static_cast<std::int64_t>(net.size(link.receiver)) &&
                    test_bit(&towards[first], static_cast<std::size_t>(j)))
                    add(static_cast<std::size_t>(j));
                continue;
            }
            for (std::size_t w = 0; w < net.words(link.receiver); ++w)
                for_each_bit(towards[first + w], w * word_bits, add);
        }
    }
    return bound;
}

Bound into(const CapacityIndex& capacities, const std::vector<Node>& nodes, const std::vector<Word>& set,
           const std::vector<Word>& from) {
    const Network& net = capacities.network();
    constexpr std::size_t finest = CapacityIndex::n_scales - 1;
    Bound bound;
    for (const Node node : nodes) {
        const std::uint32_t block = net.block_of(node);
        const std::size_t j = node - net.first_node(block);
        for (const std::uint32_t e : net.links_into(block)) {
            const Link& link = net.links()[e];
            const std::size_t first = net.first_word(link.giver);
            const auto add = [&](std::size_t k) {
                if (!test_bit(&set[first], k)) bound.add(capacities, e, j, k);
            };
            if (link.diagonal()) {
                const std::int64_t k = static_cast<std::int64_t>(j) - link.offset;
                if (k >= 0 && k < static_cast<std::int64_t>(net.size(link.giver)) &&
                    test_bit(&from[first], static_cast<std::size_t>(k)))
                    add(static_cast<std::size_t>(k));
                continue;
            }
            const Word* row = capacities.bits(finest, e, j);
            for (std::size_t w = 0; w < net.words(link.giver); ++w)
                for_each_bit(row[w] & from[first + w], w * word_bits, add);
        }
    }
    return bound;
}

}  // namespace attnflow
