// The one door of the kernel: exact maximum flows from many sources to many sinks of one network.
#pragma once

#include <cstdint>
#include <vector>

#include "attnflow/capacity.hpp"
#include "attnflow/network.hpp"

namespace attnflow {

enum class Algorithm : std::uint8_t { automatic, dinic, push_relabel };

/// Every set of sources is solved against every set of sinks; the nodes of a set act as one (a super source or sink).
struct Query {
    std::vector<std::vector<Node>> sources, sinks;
};

/// Told about progress by the thread that called solve(), some ten times a second. An exception thrown from tick()
/// stops all threads and leaves solve() as it is.
class Monitor {
   public:
    virtual ~Monitor() = default;
    virtual void tick(std::uint64_t done, std::uint64_t total) = 0;
};

/// Whether sources of a sink take over a flow that they share (Dinic only); `always`: all of them, and nothing else is tried.
/// It changes no answer.
enum class Sharing : std::uint8_t { automatic, always };

struct Options {
    Algorithm algorithm = Algorithm::automatic;
    unsigned threads = 1;
    bool bottlenecks = false;  // where each value's minimum cut lies
    bool cuts = false;         // its source side
    bool flows = false;        // the edges' flows; one pair only
    bool check = false;        // verify every solve; throws CertificateFailure
    Monitor* monitor = nullptr;
    Sharing sharing = Sharing::automatic;
};

/// What limits a flow. Codes >= 0 are the link with the largest share of the minimum cut nearest the source.
enum Bottleneck : std::int32_t {
    at_source = -1,  // value == capacity out of the source, into nodes that reach the sink
    at_sink = -2,    // value == capacity into the sink, out of nodes the source reaches
    nowhere = -3     // value == 0
};

struct EdgeFlow {
    std::uint32_t link, receiver, giver;  // positions
    Units flow;
};

struct Statistics {
    std::uint64_t edges = 0, searches = 0, augmentations = 0, touched = 0;
    std::uint64_t index_bytes = 0, workspace_bytes = 0;
    Algorithm algorithm = Algorithm::automatic;
    unsigned threads = 1;
};

/// Pairs are numbered sink * n_sources + source.
struct Answer {
    Quantum quantum;
    std::vector<Units> value;              // [pair] maximum flow of the quantised network: feasible in the given one
    std::vector<Units> upper;              // [pair] no less than a cut in the given capacities, dropped edges included;
                                           // from `unbounded` on, no bound
    std::vector<std::int32_t> bottleneck;  // [pair] see Bottleneck; empty unless asked for
    std::vector<Word> source_side;         // [pair][Network word]; empty unless asked for
    std::vector<EdgeFlow> flows;           // positive ones; empty unless asked for
    Statistics statistics;
};

/// Throws InvalidArgument, InvalidCapacity, CapacityOverflow, UnboundedFlow, CertificateFailure, and whatever the
/// monitor throws. The answer does not depend on the number of threads.
Answer solve(const Network& network, const Query& query, const Options& options);

}  // namespace attnflow
