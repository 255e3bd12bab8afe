// The certificate: accepts what the solvers produce, and rejects every way of getting it wrong.
#include "attnflow/certificate.hpp"

#include <algorithm>

#include "agreement.hpp"
#include "attnflow/errors.hpp"
#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

// A solved pair whose certificate can be tampered with. Bottleneck in the middle: neither trivial cut is minimum.
struct Solved {
    Store store;
    Network network;
    CapacitySurvey survey;
    Answer answer;
    CapacityIndex index;
    std::vector<EdgeFlow> flows;
    std::vector<Node> sources{0, 1}, sinks{10, 11};
    Units value;
    std::vector<Word> side;

    static Store make() {
        Random random(71);
        Store made({3, 3, 3, 3});
        const auto value_at = [&](std::uint32_t, std::uint32_t) { return random.between(2, 9); };
        made.dense<std::int32_t>(0, 1, [](std::uint32_t, std::uint32_t) { return 40; });
        made.dense<std::int32_t>(1, 2, value_at);
        made.diagonal<std::int32_t>(1, 2, 1, [](std::uint32_t k) { return k + 1; });
        made.dense<std::int32_t>(2, 3, [](std::uint32_t, std::uint32_t) { return 50; });
        return made;
    }
    static Answer solved(const Network& network) {
        Options options;
        options.cuts = options.flows = options.check = true;
        return solve(network, {{{0, 1}}, {{10, 11}}}, options);
    }

    Solved()
        : store(make()),
          network(store.network()),
          survey(network),
          answer(solved(network)),
          index(network, survey, answer.quantum),
          flows(answer.flows),
          value(answer.value[0]),
          side(answer.source_side) {}

    void check() const { check_certificate(index, flows, sources, sinks, value, side); }

    Word* side_of(std::size_t block) { return side.data() + network.first_word(block); }

    // Adds `amount` to the flow of an edge, whether it carries any or not.
    void add(std::uint32_t link, std::uint32_t receiver, std::uint32_t giver, Units amount) {
        for (EdgeFlow& edge : flows)
            if (edge.link == link && edge.receiver == receiver && edge.giver == giver) {
                edge.flow += amount;
                return;
            }
        flows.push_back({link, receiver, giver, amount});
    }
};

TEST(certificate, accepts_a_solve) {
    const Solved solved;
    solved.check();
    CHECK(solved.value > 0);
    CHECK_EQUAL(cut_capacity(solved.index, solved.side).units, solved.value);
    const CutCapacity cut = cut_capacity(solved.index, solved.side);
    CHECK_EQUAL(cut.by_link[0], Units{0});
    CHECK_EQUAL(cut.by_link[1] + cut.by_link[2], solved.value);
    CHECK_EQUAL(cut.rounded, std::uint64_t{0});
}

TEST(certificate, accepts_another_maximum_flow_and_another_minimum_cut) {
    Solved solved;
    // A detour that changes no balance: giver 0 -> receivers 0 and 1 of link 0 both have room.
    const reference::MaximumFlow twin =
        reference::edmonds_karp(reference::edges(solved.network, 0), 12, {0, 1}, {10, 11});
    const std::vector<reference::Edge> edges = reference::edges(solved.network, 0);
    solved.flows.clear();
    for (std::size_t i = 0; i < edges.size(); ++i)
        solved.flows.push_back({edges[i].link, edges[i].receiver, edges[i].giver, twin.flow[i]});
    solved.check();
    // All of the middle cut's far side moved by the node that neither side needs: the source block's third node.
    solved.side_of(0)[0] ^= Word{4};
    solved.check();
}

TEST(certificate, rejects_a_wrong_value) {
    for (const Units off : {Units{-1}, Units{1}, -unbounded / 2, unbounded / 2}) {
        Solved solved;
        solved.value += off;
        CHECK_THROWS(CertificateFailure, solved.check());
    }
}

TEST(certificate, rejects_a_flow_above_capacity) {
    Solved solved;
    // One unit around 0 -> (1, 0) -> (2, 0) -> sink more than the edge in the middle holds; conservation is kept.
    const Units capacity = solved.index.at(1, 0, 0);
    solved.add(0, 0, 0, capacity + 1);
    solved.add(1, 0, 0, capacity + 1);
    solved.add(3, 1, 0, capacity + 1);
    solved.value += capacity + 1;
    const std::string message = CHECK_THROWS(CertificateFailure, solved.check());
    CHECK(message.find("capacity") != std::string::npos);
}

TEST(certificate, rejects_a_negative_flow) {
    Solved solved;
    solved.flows.push_back({1, 0, 0, -1});
    CHECK_THROWS(CertificateFailure, solved.check());
}

TEST(certificate, rejects_an_edge_that_exceeds_its_capacity_in_parts) {
    Solved solved;
    // The same path twice, each time within capacity.
    const Units capacity = solved.index.at(1, 0, 0);
    solved.flows.clear();
    for (int part = 0; part < 2; ++part) {
        solved.flows.push_back({0, 0, 0, capacity});
        solved.flows.push_back({1, 0, 0, capacity});
        solved.flows.push_back({3, 1, 0, capacity});
    }
    // A cut of the value that this claims: the certificate stands or falls with the edge named twice.
    Store store({1, 1});
    store.dense<std::int32_t>(0, 1, [](std::uint32_t, std::uint32_t) { return 3; });
    store.dense<std::int32_t>(0, 1, [](std::uint32_t, std::uint32_t) { return 5; });
    const Network network = store.network();
    const CapacityIndex index(network, CapacitySurvey(network), Quantum(8, 1, true));
    const std::vector<Word> side = {1, 0};
    check_certificate(index, {{0, 0, 0, 3}, {1, 0, 0, 5}}, {0}, {1}, 8, side);
    CHECK_THROWS(CertificateFailure,
                 check_certificate(index, {{0, 0, 0, 3}, {0, 0, 0, 3}, {1, 0, 0, 2}}, {0}, {1}, 8, side));
}

TEST(certificate, rejects_broken_conservation) {
    for (std::size_t i = 0; i < Solved().flows.size(); ++i) {
        Solved solved;
        solved.flows[i].flow -= 1;
        CHECK_THROWS(CertificateFailure, solved.check());
        Solved dropped;
        dropped.flows.erase(dropped.flows.begin() + static_cast<std::ptrdiff_t>(i));
        CHECK_THROWS(CertificateFailure, dropped.check());
    }
}

TEST(certificate, rejects_a_flow_that_is_not_maximum) {
    // Less flow, and a value to match: only the cut can tell.
    Solved solved;
    solved.flows.clear();
    solved.value = 0;
    const std::string message = CHECK_THROWS(CertificateFailure, solved.check());
    CHECK(message.find("cut") != std::string::npos);
}

TEST(certificate, rejects_a_cut_that_is_not_minimum) {
    for (std::size_t block = 1; block < 3; ++block)
        for (std::size_t i = 0; i < 3; ++i) {
            Solved solved;
            solved.side_of(block)[0] ^= Word{1} << i;
            CHECK_THROWS(CertificateFailure, solved.check());
        }
}

TEST(certificate, rejects_a_cut_that_does_not_separate) {
    for (const std::size_t i : {0, 1}) {
        Solved solved;
        clear_bit(solved.side_of(0), i);
        CHECK_THROWS(CertificateFailure, solved.check());
    }
    for (const std::size_t i : {1, 2}) {
        Solved solved;
        set_bit(solved.side_of(3), i);
        CHECK_THROWS(CertificateFailure, solved.check());
    }
}

TEST(certificate, rejects_an_edge_a_diagonal_does_not_have) {
    Store store({2, 2});
    store.diagonal<std::int32_t>(0, 1, 1, [](std::uint32_t) { return 4; });
    const Network network = store.network();
    const CapacityIndex index(network, CapacitySurvey(network), Quantum(8, 1, true));
    check_certificate(index, {{0, 1, 0, 4}}, {0}, {3}, 4, {1, 0});
    // Giver 0 feeds receiver 1, not receiver 0.
    CHECK_THROWS(CertificateFailure, check_certificate(index, {{0, 1, 0, 4}, {0, 0, 0, 4}}, {0}, {2, 3}, 8, {1, 0}));
    CHECK_THROWS(CertificateFailure, check_certificate(index, {{0, 0, 0, 4}}, {0}, {2}, 4, {1, 0}));
}

TEST(certificate, a_cut_of_several_unbounded_edges_is_unbounded) {
    Store store({2, 4});
    store.dense<float>(0, 1, [](std::uint32_t, std::uint32_t) { return infinity; });
    store.dense<float>(0, 1, [](std::uint32_t, std::uint32_t) { return infinity; });
    store.diagonal<float>(0, 1, 0, [](std::uint32_t) { return infinity; });
    const Network network = store.network();
    const CapacityIndex index(network, CapacitySurvey(network), Quantum(1, 1, false));
    CHECK(cut_capacity(index, {3, 0}).units >= unbounded);
    CHECK_EQUAL(cut_capacity(index, {3, 15}).units, Units{0});
    CHECK_THROWS(CertificateFailure, check_certificate(index, {}, {0, 1}, {2}, 0, {3, 0}));
}

TEST(certificate, a_cut_counts_what_was_rounded) {
    Store store({3, 1});
    store.dense<double>(0, 1, [](std::uint32_t, std::uint32_t k) { return k == 0 ? 1.0 : k == 1 ? 0.3 : 0x1p-80; });
    const Network network = store.network();
    const CapacityIndex index(network, CapacitySurvey(network), Quantum(0x1p20, 1, false));
    const CutCapacity cut = cut_capacity(index, {7, 0});
    CHECK(cut.rounded >= 2);  // one rounded, one vanished
    CHECK_EQUAL(index.n_vanished(), std::uint64_t{1});
}

}  // namespace
}  // namespace attnflow::testing
