// Threads that work on one job, and the one among them that reports.
//
// The calling thread works too, and is the only one that talks to the monitor: what it throws stops the others.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "attnflow/max_flow.hpp"
#include "pulse.hpp"

namespace attnflow {

// Passes progress on to the monitor, some ten times a second.
class Reporter {
   public:
    Reporter(Monitor* monitor, std::uint64_t total) : monitor_(monitor), total_(total), last_(Clock::now()) {}
    void report(std::uint64_t done) {
        if (monitor_ == nullptr || Clock::now() - last_ < std::chrono::milliseconds(100)) return;
        last_ = Clock::now();
        monitor_->tick(done, total_);
    }
    void finish() {
        if (monitor_ != nullptr) monitor_->tick(total_, total_);
    }

   private:
    using Clock = std::chrono::steady_clock;
    Monitor* monitor_;
    std::uint64_t total_;
    Clock::time_point last_;
};

class Crew {
   public:
    explicit Crew(Reporter& reporter) : reporter_(reporter), pulse_(*this) {}

    /// The calling thread's pulse, which also reports.
    Pulse& pulse() { return pulse_; }
    void one_more_done() { done_.fetch_add(1); }

    /// Calls work(thread, pulse) for threads 0 ... threads - 1, the calling thread being 0. What one of them throws stops all,
    /// and the first such is thrown again. Returns how many threads there were: where no more are to be had, fewer.
    template <class Work>
    unsigned work(unsigned threads, const Work& each) {
        std::mutex mutex;
        std::exception_ptr failure;
        const auto fail = [&] {
            const std::scoped_lock lock(mutex);
            if (!failure) failure = std::current_exception();  // the first one; the others are Cancelled
            stop_ = true;
        };
        const auto guarded = [&](unsigned thread, Pulse& own) {
            try {
                each(thread, own);
            } catch (...) {
                fail();
            }
        };
        std::atomic<unsigned> busy{0};
        std::vector<std::jthread> helpers;
        try {
            while (helpers.size() + 1 < threads) {
                busy.fetch_add(1);
                helpers.emplace_back([&, thread = static_cast<unsigned>(helpers.size()) + 1] {
                    Pulse own(stop_);
                    guarded(thread, own);
                    busy.fetch_sub(1);
                });
            }
        } catch (const std::system_error&) {  // those there are do the work
            busy.fetch_sub(1);
        }
        const auto had = static_cast<unsigned>(helpers.size()) + 1;
        guarded(0, pulse_);
        while (busy.load() > 0) {  // nothing left to take, but the monitor may still want to stop the others
            try {
                pulse_.check();
            } catch (...) {
                fail();
            }
            std::this_thread::sleep_for(std::chrono::microseconds(200));
        }
        helpers.clear();
        if (failure) std::rethrow_exception(failure);
        return had;
    }

   private:
    class ReportingPulse final : public Pulse {
       public:
        explicit ReportingPulse(Crew& crew) : Pulse(crew.stop_), crew_(crew) {}
        void report() override { crew_.reporter_.report(crew_.done_.load()); }

       private:
        Crew& crew_;
    };

    Reporter& reporter_;
    std::atomic<std::uint64_t> done_{0};
    std::atomic<bool> stop_{false};
    ReportingPulse pulse_;
};

}  // namespace attnflow
