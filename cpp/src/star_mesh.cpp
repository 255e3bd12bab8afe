// Star-mesh elimination
//
// A node with weights w_i to its neighbours is taken away by giving every two of them w_i w_j / sum(w) more: from outside,
// the rest looks as before. What textbooks subtract from the diagonal is never formed, since a diagonal is the sum of what
// leaves a node, so that nothing cancels (Grassmann, Taksar and Heyman, "Regenerative Analysis and Steady State
// Distributions for Markov Chains", Operations Research 33, 1985).
#include "attnflow/star_mesh.hpp"

#include <algorithm>

namespace attnflow {

void eliminate(std::size_t n, double* within, double* outside, double* passed, double* pivots) {
    std::fill(passed, passed + n * n, 0.0);
    for (std::size_t k = 0; k < n; ++k) passed[k * n + k] = 1.0;
    for (std::size_t k = 0; k < n; ++k) {
        const double* const row = within + k * n;
        const double* const held = passed + k * n;
        double pivot = outside[k];
        for (std::size_t i = k + 1; i < n; ++i) pivot += row[i];
        pivots[k] = pivot;
        for (std::size_t i = k + 1; i < n; ++i) {
            if (row[i] == 0) continue;
            const double share = row[i] / pivot;
            double* const theirs = within + i * n;
            for (std::size_t j = i + 1; j < n; ++j) theirs[j] += share * row[j];
            outside[i] += share * outside[k];
            double* const holds = passed + i * n;
            for (std::size_t j = 0; j <= k; ++j) holds[j] += share * held[j];
        }
    }
}

}  // namespace attnflow
