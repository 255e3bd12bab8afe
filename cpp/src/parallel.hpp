// Work that falls into independent parts, on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "attnflow/capacity.hpp"

namespace attnflow {

/// Calls part(i, pause) for i = 0 ... n - 1, in this order as far as there is one, on at most `threads` threads. The calling
/// thread is one of them, and the only one that calls the given pause. What a part throws is thrown again once no part runs
/// any more: of several, what the first of them threw, so that it does not depend on the threads.
template <class Part>
void for_each_part(std::size_t n, unsigned threads, const Pause& pause, const Part& part) {
    std::atomic<std::size_t> next{0};
    std::mutex mutex;
    std::exception_ptr failure;
    std::size_t failed = n;
    const auto work = [&](const Pause& own) {
        for (std::size_t i; (i = next.fetch_add(1)) < n;) try {
                part(i, own);
            } catch (...) {
                next = n;  // hand out no more
                const std::scoped_lock lock(mutex);
                if (i < failed) failure = std::current_exception();
                failed = std::min(failed, i);
            }
    };
    {
        std::vector<std::jthread> helpers;
        try {
            while (helpers.size() + 1 < std::min<std::size_t>(threads, n)) helpers.emplace_back([&] { work({}); });
        } catch (const std::system_error&) {  // no more threads to be had: those there are do the work
        }
        work(pause);
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace attnflow
