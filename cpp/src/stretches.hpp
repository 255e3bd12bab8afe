// Who solves which pairs.
//
// Neighbours share what a thread has learned - columns, cuts, a flow that grows with what sources reach - so each thread
// works through a stretch of its own, from the front. Who has none left takes the back half of the longest.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

namespace attnflow {

class Stretches {
   public:
    /// Items 0 ... n - 1 for threads 0 ... n_threads - 1; those of threads that never come are taken by the others.
    Stretches(std::uint64_t n, unsigned n_threads) : left_(n_threads) {
        for (std::uint64_t thread = 0; thread < n_threads; ++thread)
            left_[thread] = {n * thread / n_threads, n * (thread + 1) / n_threads};
    }

    /// The next item of a thread; nothing once all are taken.
    std::optional<std::uint64_t> next(unsigned thread) {
        const std::scoped_lock lock(mutex_);
        Stretch& own = left_[thread];
        if (own.first == own.end) {
            Stretch& longest = *std::max_element(left_.begin(), left_.end(), [](const Stretch& a, const Stretch& b) {
                return a.end - a.first < b.end - b.first;
            });
            own = {longest.first + (longest.end - longest.first) / 2, longest.end};
            if (&longest != &own) longest.end = own.first;
        }
        if (own.first == own.end) return std::nullopt;
        return own.first++;
    }

   private:
    struct Stretch {
        std::uint64_t first = 0, end = 0;
    };
    std::mutex mutex_;
    std::vector<Stretch> left_;  // [thread]
};

}  // namespace attnflow
