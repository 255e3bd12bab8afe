// Star-mesh elimination: what is put into a node comes out, to the last digits, however weights differ.
#include "attnflow/star_mesh.hpp"

#include <cmath>

#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

struct Mesh {
    std::size_t n;
    std::vector<double> within, outside;
};

// Weights from 1e-60 to 1e60 where there are any; a ring keeps the nodes together.
Mesh random_mesh(std::size_t n, Random& random) {
    const auto weight = [&] { return std::pow(10.0, static_cast<double>(random.below(121)) - 60.0); };
    Mesh mesh{n, std::vector<double>(n * n), std::vector<double>(n)};
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < i; ++j)
            if (j + 1 == i || random.chance(0.4)) mesh.within[i * n + j] = mesh.within[j * n + i] = weight();
        if (i == 0 || random.chance(0.3)) mesh.outside[i] = weight();
    }
    return mesh;
}

}  // namespace

// All nodes at 1 and the outside at 0: into each node flows just its weight to the outside.
TEST(star_mesh, potentials_of_one_come_back) {
    for (std::uint32_t seed = 0; seed < 200; ++seed) {
        Random random(seed);
        const Scope scope("seed " + std::to_string(seed));
        const Mesh mesh = random_mesh(random.between(1, 40), random);
        const std::size_t n = mesh.n;
        std::vector<double> within = mesh.within, outside = mesh.outside, passed(n * n), pivots(n);
        eliminate(n, within.data(), outside.data(), passed.data(), pivots.data());
        std::vector<double> held(n), potential(n);
        for (std::size_t k = 0; k < n; ++k) {
            CHECK(pivots[k] > 0);
            for (std::size_t i = 0; i < n; ++i) {
                CHECK(passed[k * n + i] >= 0);
                CHECK(i <= k || passed[k * n + i] == 0);
                held[k] += passed[k * n + i] * mesh.outside[i];
            }
        }
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t k = i; k < n; ++k) potential[i] += passed[k * n + i] / pivots[k] * held[k];
            CHECK(std::abs(potential[i] - 1) < 1e-12);
        }
    }
}

TEST(star_mesh, two_nodes_by_hand) {
    std::vector<double> within{0, 2, 2, 0}, outside{1, 0}, passed(4), pivots(2);
    eliminate(2, within.data(), outside.data(), passed.data(), pivots.data());
    CHECK_EQUAL(pivots[0], 3.0);
    CHECK_EQUAL(pivots[1], 2.0 / 3);  // two conductors of 2 and 1, one behind the other
    CHECK_EQUAL(passed[2], 2.0 / 3);
    CHECK_EQUAL(passed[1], 0.0);
    CHECK_EQUAL(passed[0] + passed[3], 2.0);
}

}  // namespace attnflow::testing
