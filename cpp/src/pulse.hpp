// How a long solve is interrupted.
#pragma once

#include <atomic>
#include <cstdint>

#include "attnflow/errors.hpp"

namespace attnflow {

/// Lets a long solve be stopped. The thread that called solve() also reports progress from here.
class Pulse {
   public:
    explicit Pulse(const std::atomic<bool>& stop) : stop_(stop) {}
    virtual ~Pulse() = default;
    /// Called every few nanoseconds of work. Throws Cancelled.
    void beat() {
        if (++beats_ % 1024 == 0) check();
    }
    /// Called every few microseconds of work. Throws Cancelled.
    void check() {
        if (stop_.load(std::memory_order_relaxed)) throw Cancelled();
        report();
    }

   protected:
    virtual void report() {}

   private:
    const std::atomic<bool>& stop_;
    std::uint32_t beats_ = 0;
};

}  // namespace attnflow
