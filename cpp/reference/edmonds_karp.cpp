// Edmonds-Karp: the maximum flow nobody has to trust
//
// Problem. The kernel is fast because it is not obvious: bits for rows, thresholds for scales, searches that run against
// the edges, an overlay that is undone. Each is a place to be wrong in. This file answers the same question with none of
// them, so that when the two disagree the kernel is at fault. It is meant to be read once and believed.
//
// What it shares with the kernel: the Network (how nodes are numbered, where a link's memory lies) and the meaning of
// "quanta": q(c) = floor(c * 2^exponent). It reads the memory itself, rounds by itself, and has its own graph.
//
// Notation. Every edge i of positive capacity becomes two arcs: 2i along it, with all of the capacity left, and 2i + 1
// against it, with nothing left. An arc's partner is arc ^ 1. What one arc gives up its partner gains, so the flow of
// edge i is what arc 2i + 1 has left.
//
// Steps.
//   1. breadth-first search from all sources at once along arcs with something left;
//   2. no sink reached: done;
//   3. the path to the first sink found carries the least that its arcs have left; send it; again from 1.
// The nodes that the last search reached are the source side of a minimum cut, and of the minimum cuts the one nearest
// the sources. That set is the same for every maximum flow, so the kernel's must equal it bit for bit.
//
// Unbounded edges hold `unbounded` = 2^62 quanta. A path of nothing else is refused before the first search; without
// one, some cut is finite, and the caller chose the exponent such that it is below 2^62: no unbounded edge ever fills,
// and no sum below overflows.
//
// Complexity. O(n m) augmentations of O(m) each: for networks of some hundred nodes.
//
// Papers. [EK72] J. Edmonds, R. M. Karp, "Theoretical improvements in algorithmic efficiency for network flow
// problems", JACM 19 (1972).

#include "edmonds_karp.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>

#include "attnflow/errors.hpp"

namespace attnflow::reference {
namespace {

template <class T>
T value_at(const std::byte* where) {
    T value;
    std::memcpy(&value, where, sizeof value);
    return value;
}

Units quanta_of(double c, int exponent) {
    const double scaled = std::floor(std::ldexp(c, exponent));  // ldexp of infinity is infinity
    return scaled < std::ldexp(1.0, 62) ? static_cast<Units>(scaled) : unbounded;
}

Units quanta_of(std::int64_t c, int exponent) {
    if (c >= unbounded) return unbounded;
    if (exponent <= 0) return exponent > -63 ? c >> -exponent : 0;
    if (c == 0) return 0;
    return exponent < 62 && c < unbounded >> exponent ? c << exponent : unbounded;
}

bool is_exact(double c, int exponent) {
    const Units q = quanta_of(c, exponent);
    return q == unbounded || std::ldexp(static_cast<double>(q), -exponent) == c;
}

bool is_exact(std::int64_t c, int exponent) {
    const Units q = quanta_of(c, exponent);
    return exponent >= 0 || q == unbounded || (q == 0 ? c == 0 : q << -exponent == c);
}

// The first byte of an entry; nullptr where there is none, of capacity 0.
const std::byte* place_of(const Link& link, std::size_t receiver, std::size_t giver) {
    const std::ptrdiff_t item = link.scalar == Scalar::float64 || link.scalar == Scalar::int64 ? 8 : 4;
    const auto j = static_cast<std::ptrdiff_t>(receiver), k = static_cast<std::ptrdiff_t>(giver);
    switch (link.storage) {
        case Storage::strided: return link.data + j * link.row_stride + k * link.column_stride;
        case Storage::diagonal: return link.data + k * link.column_stride;
        case Storage::triangle: {
            std::ptrdiff_t before = 0;
            for (std::ptrdiff_t row = 0; row < j; ++row) before += row + 1;
            return k <= j ? link.data + (before + k) * item : nullptr;
        }
        case Storage::sparse: break;
    }
    for (std::int64_t i = link.starts[j]; i < link.starts[j + 1]; ++i)
        if (link.columns[i] == giver) return link.data + i * item;
    return nullptr;
}

// Calls visit with the value of an entry, as a double or as an int64.
template <class Visit>
auto with_value(const Link& link, std::size_t receiver, std::size_t giver, Visit&& visit) {
    const std::byte* where = place_of(link, receiver, giver);
    if (where == nullptr) return visit(std::int64_t{0});
    switch (link.scalar) {
        case Scalar::float32: return visit(static_cast<double>(value_at<float>(where)));
        case Scalar::float64: return visit(value_at<double>(where));
        case Scalar::int32: return visit(static_cast<std::int64_t>(value_at<std::int32_t>(where)));
        case Scalar::int64: break;
    }
    return visit(value_at<std::int64_t>(where));
}

}  // namespace

Units quanta(const Link& link, std::size_t receiver, std::size_t giver, int exponent) {
    return with_value(link, receiver, giver, [=](auto c) { return quanta_of(c, exponent); });
}

bool is_exact(const Link& link, std::size_t receiver, std::size_t giver, int exponent) {
    return with_value(link, receiver, giver, [=](auto c) { return is_exact(c, exponent); });
}

std::vector<Edge> edges(const Network& network, int exponent) {
    std::vector<Edge> all;
    for (std::uint32_t e = 0; e < network.links().size(); ++e) {
        const Link& link = network.links()[e];
        for (std::uint32_t j = 0; j < network.size(link.receiver); ++j)
            for (std::uint32_t k = 0; k < network.size(link.giver); ++k) {
                if (link.diagonal() && std::int64_t{k} + link.offset != std::int64_t{j}) continue;
                const Units capacity = quanta(link, j, k, exponent);
                if (capacity > 0)
                    all.push_back(
                        {e, j, k, network.first_node(link.giver) + k, network.first_node(link.receiver) + j, capacity});
            }
    }
    return all;
}

std::vector<bool> reachable(const std::vector<Edge>& edges, std::size_t n_nodes, const std::vector<Node>& from,
                            bool against) {
    std::vector<bool> reached(n_nodes, false);
    for (const Node node : from) reached[node] = true;
    for (bool any = true; any;) {
        any = false;
        for (const Edge& edge : edges) {
            const Node tail = against ? edge.to : edge.from, head = against ? edge.from : edge.to;
            if (!reached[tail] || reached[head]) continue;
            reached[head] = any = true;
        }
    }
    return reached;
}

MaximumFlow edmonds_karp(const std::vector<Edge>& edges, std::size_t n_nodes, const std::vector<Node>& sources,
                         const std::vector<Node>& sinks) {
    std::vector<Edge> endless;
    std::copy_if(edges.begin(), edges.end(), std::back_inserter(endless),
                 [](const Edge& edge) { return edge.capacity == unbounded; });
    const std::vector<bool> without_end = reachable(endless, n_nodes, sources);
    for (const Node sink : sinks)
        if (without_end[sink]) throw UnboundedFlow("a source reaches a sink through unbounded edges alone");

    std::vector<std::vector<std::size_t>> arcs_out_of(n_nodes);
    std::vector<Units> left(2 * edges.size(), 0);
    for (std::size_t i = 0; i < edges.size(); ++i) {
        arcs_out_of[edges[i].from].push_back(2 * i);
        arcs_out_of[edges[i].to].push_back(2 * i + 1);
        left[2 * i] = edges[i].capacity;
    }
    const auto head = [&](std::size_t arc) { return arc % 2 == 0 ? edges[arc / 2].to : edges[arc / 2].from; };
    const auto tail = [&](std::size_t arc) { return head(arc ^ 1); };

    std::vector<bool> is_source(n_nodes, false), is_sink(n_nodes, false);
    for (const Node node : sources) is_source[node] = true;
    for (const Node node : sinks) is_sink[node] = true;

    MaximumFlow answer;
    for (;;) {
        std::vector<bool> reached = is_source;
        std::vector<std::size_t> by(n_nodes);  // [reached node, not a source] the arc that reached it
        std::deque<Node> queue;
        for (Node node = 0; node < n_nodes; ++node)
            if (is_source[node]) queue.push_back(node);
        bool found = false;
        Node end = 0;
        while (!queue.empty() && !found) {
            const Node node = queue.front();
            queue.pop_front();
            for (const std::size_t arc : arcs_out_of[node]) {
                const Node next = head(arc);
                if (left[arc] == 0 || reached[next]) continue;
                reached[next] = true;
                by[next] = arc;
                queue.push_back(next);
                if (!is_sink[next]) continue;
                found = true;
                end = next;
                break;
            }
        }
        if (!found) {
            answer.source_side = reached;
            break;
        }
        Units amount = unbounded;
        for (Node node = end; !is_source[node]; node = tail(by[node])) amount = std::min(amount, left[by[node]]);
        for (Node node = end; !is_source[node]; node = tail(by[node])) {
            left[by[node]] -= amount;
            left[by[node] ^ 1] += amount;
        }
        answer.value += amount;
    }
    for (std::size_t i = 0; i < edges.size(); ++i) answer.flow.push_back(left[2 * i + 1]);
    return answer;
}

}  // namespace attnflow::reference
