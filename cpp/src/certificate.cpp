// The certificate of a maximum flow: feasibility of the flow, and a cut of the same value. By weak duality neither can
// exceed the other, so together they prove both optimal, whatever algorithm, however wrong, produced them.
#include "attnflow/certificate.hpp"

#include <algorithm>
#include <string>
#include <tuple>

#include "attnflow/errors.hpp"

namespace attnflow {
namespace {

bool has_edge(const Network& net, const EdgeFlow& edge) {
    if (edge.link >= net.links().size()) return false;
    const Link& link = net.links()[edge.link];
    if (edge.giver >= net.size(link.giver) || edge.receiver >= net.size(link.receiver)) return false;
    return !link.diagonal() || static_cast<std::int64_t>(edge.giver) + link.offset == edge.receiver;
}

}  // namespace

CutCapacity cut_capacity(const CapacityIndex& capacities, const std::vector<Word>& source_side) {
    const Network& net = capacities.network();
    const std::size_t finest = CapacityIndex::n_scales - 1;
    CutCapacity cut;
    cut.by_link.assign(net.links().size(), 0);
    for (std::size_t e = 0; e < net.links().size(); ++e) {
        const Link& link = net.links()[e];
        const Word* giver_side = source_side.data() + net.first_word(link.giver);
        const Word* receiver_side = source_side.data() + net.first_word(link.receiver);
        const std::size_t givers = net.size(link.giver);
        std::size_t low = 0, high = net.words(link.giver);
        while (low < high && giver_side[low] == 0) ++low;
        while (low < high && giver_side[high - 1] == 0) --high;
        if (low == high) continue;
        const auto count = [&](std::size_t j, std::size_t k) {
            const Units capacity = capacities.at(e, j, k);
            cut.by_link[e] = saturating_sum(cut.by_link[e], capacity);
            if (capacity > 0 && !capacities.exact(e, j, k)) ++cut.rounded;
        };
        for (std::size_t j = 0; j < net.size(link.receiver); ++j) {
            if (test_bit(receiver_side, j)) continue;
            if (link.diagonal()) {
                const std::int64_t k = static_cast<std::int64_t>(j) - link.offset;
                if (k >= 0 && k < static_cast<std::int64_t>(givers) &&
                    test_bit(giver_side, static_cast<std::size_t>(k)))
                    count(j, static_cast<std::size_t>(k));
                continue;
            }
            const Word* row = capacities.bits(finest, e, j);
            for (std::size_t w = low; w < high; ++w)
                for_each_bit(row[w] & giver_side[w], w * word_bits, [&](std::size_t k) { count(j, k); });
        }
        cut.units = saturating_sum(cut.units, cut.by_link[e]);
    }
    // Capacities below one quantum have no bit. Wherever they lie, one quantum each covers them.
    cut.rounded += capacities.n_vanished();
    return cut;
}

void check_certificate(const CapacityIndex& capacities, const std::vector<EdgeFlow>& flows,
                       const std::vector<Node>& sources, const std::vector<Node>& sinks, Units value,
                       const std::vector<Word>& source_side) {
    const Network& net = capacities.network();
    std::vector<Units> net_inflow(net.n_nodes(), 0);
    std::vector<EdgeFlow> sorted = flows;  // so that an edge listed in parts is seen
    const auto place = [](const EdgeFlow& edge) { return std::tuple(edge.link, edge.receiver, edge.giver); };
    std::sort(sorted.begin(), sorted.end(), [&](const auto& a, const auto& b) { return place(a) < place(b); });
    for (std::size_t i = 0; i < sorted.size(); ++i) {
        const EdgeFlow& edge = sorted[i];
        const std::string name = "link " + std::to_string(edge.link) + ", receiver " + std::to_string(edge.receiver) +
                                 ", giver " + std::to_string(edge.giver);
        if (i > 0 && place(sorted[i - 1]) == place(edge)) throw CertificateFailure(name + " is listed twice");
        if (!has_edge(net, edge)) throw CertificateFailure(name + " is no edge of the network");
        const Units capacity = capacities.at(edge.link, edge.receiver, edge.giver);
        if (edge.flow < 0 || edge.flow > capacity)
            throw CertificateFailure("flow " + std::to_string(edge.flow) + " on " + name +
                                     " is not within its capacity " + std::to_string(capacity));
        const Link& link = net.links()[edge.link];
        net_inflow[net.first_node(link.giver) + edge.giver] -= edge.flow;
        net_inflow[net.first_node(link.receiver) + edge.receiver] += edge.flow;
    }
    const auto side = [&](Node node) {
        const std::uint32_t block = net.block_of(node);
        return test_bit(source_side.data() + net.first_word(block), node - net.first_node(block));
    };
    Units out = 0, in = 0;
    for (const Node node : sources) {
        if (!side(node)) throw CertificateFailure("the cut does not hold a source");
        out -= net_inflow[node];
        net_inflow[node] = 0;
    }
    for (const Node node : sinks) {
        if (side(node)) throw CertificateFailure("the cut does not part source and sink");
        in += net_inflow[node];
        net_inflow[node] = 0;
    }
    if (out != value || in != value)
        throw CertificateFailure("the value is " + std::to_string(value) + ", but " + std::to_string(out) +
                                 " leaves the source and " + std::to_string(in) + " enters the sink");
    for (std::size_t node = 0; node < net_inflow.size(); ++node)
        if (net_inflow[node] != 0)
            throw CertificateFailure("node " + std::to_string(node) + " keeps " + std::to_string(net_inflow[node]));
    const Units capacity = cut_capacity(capacities, source_side).units;
    if (capacity != value)
        throw CertificateFailure("the flow is " + std::to_string(value) + ", but the cut has capacity " +
                                 std::to_string(capacity));
}

}  // namespace attnflow
