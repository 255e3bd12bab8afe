// What the kernel throws. It never prints, aborts or exits; the caller decides what a user sees.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace attnflow {

/// A network or a query breaks a rule; the message names the value and the rule.
struct InvalidArgument : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

/// A capacity is NaN or negative. Holds the index of the first offender in storage order
/// (the receiver of a diagonal's is 0).
struct InvalidCapacity : std::invalid_argument {
    InvalidCapacity(const std::string& message, std::size_t link_, std::size_t receiver_, std::size_t giver_)
        : std::invalid_argument(message), link(link_), receiver(receiver_), giver(giver_) {}
    std::size_t link, receiver, giver;
};

/// Capacities whose sums do not fit the kernel's 62-bit arithmetic.
struct CapacityOverflow : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

/// A source reaches a sink through unbounded edges alone.
struct UnboundedFlow : std::domain_error {
    using std::domain_error::domain_error;
};

/// A finished flow failed its certificate: a defect of the kernel, never of the input.
struct CertificateFailure : std::logic_error {
    using std::logic_error::logic_error;
};

/// The monitor asked to stop.
struct Cancelled : std::runtime_error {
    Cancelled() : std::runtime_error("the solve was cancelled") {}
};

}  // namespace attnflow
