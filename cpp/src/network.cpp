#include "attnflow/network.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "attnflow/errors.hpp"

namespace attnflow {
namespace {

// What reading a link's memory relies on.
void check_storage(const Link& link, const std::string& name, std::size_t n_receivers, std::size_t n_givers) {
    if (link.storage == Storage::triangle && n_receivers != n_givers)
        throw InvalidArgument(name + " is a triangle, but joins blocks of " + std::to_string(n_givers) + " and " +
                              std::to_string(n_receivers) + " nodes");
    if (link.storage != Storage::sparse) return;
    if (link.starts[0] != 0) throw InvalidArgument(name + ": its first row does not start at entry 0");
    for (std::size_t j = 0; j < n_receivers; ++j) {
        const std::int64_t first = link.starts[j], end = link.starts[j + 1];
        if (end < first) throw InvalidArgument(name + ": row " + std::to_string(j) + " ends before it starts");
        for (std::int64_t i = first; i < end; ++i)
            if (link.columns[i] >= n_givers || (i > first && link.columns[i] <= link.columns[i - 1]))
                throw InvalidArgument(name + ": the columns of row " + std::to_string(j) +
                                      " do not ascend, or name no giver");
    }
    if ((link.dropped_in == nullptr) != (link.dropped_out == nullptr))
        throw InvalidArgument(name + " has one of dropped_in and dropped_out; both are needed");
    const auto check = [&](const double* sums, std::size_t n, const char* what) {
        for (std::size_t i = 0; sums != nullptr && i < n; ++i)
            if (!(sums[i] >= 0 && std::isfinite(sums[i])))
                throw InvalidArgument(name + ": " + what + "[" + std::to_string(i) + "] is " + std::to_string(sums[i]) +
                                      "; sums of what was dropped are finite and >= 0");
    };
    check(link.dropped_in, n_receivers, "dropped_in");
    check(link.dropped_out, n_givers, "dropped_out");
}

}  // namespace

Network::Network(std::vector<std::uint32_t> sizes, std::vector<Link> links)
    : sizes_(std::move(sizes)), links_(std::move(links)), into_(sizes_.size()), out_of_(sizes_.size()) {
    std::uint64_t nodes = 0;
    for (std::size_t b = 0; b < sizes_.size(); ++b) {
        if (sizes_[b] == 0) throw InvalidArgument("block " + std::to_string(b) + " has no nodes; a block needs one");
        first_node_.push_back(static_cast<Node>(nodes));
        first_word_.push_back(n_words_);
        nodes += sizes_[b];
        n_words_ += words_for(sizes_[b]);
        if (nodes >= std::numeric_limits<Node>::max()) throw InvalidArgument("the network has 2^32 nodes or more");
        block_of_.insert(block_of_.end(), sizes_[b], static_cast<std::uint32_t>(b));
    }
    n_nodes_ = nodes;
    std::uint64_t rows = 0;
    for (std::size_t e = 0; e < links_.size(); ++e) {
        const Link& link = links_[e];
        if (link.giver >= sizes_.size() || link.receiver >= sizes_.size())
            throw InvalidArgument("link " + std::to_string(e) + " joins blocks " + std::to_string(link.giver) +
                                  " and " + std::to_string(link.receiver) + ", but there are " +
                                  std::to_string(sizes_.size()));
        if (link.giver == link.receiver && !link.diagonal())
            throw InvalidArgument("link " + std::to_string(e) + " joins block " + std::to_string(link.giver) +
                                  " to itself");
        check_storage(link, "link " + std::to_string(e), sizes_[link.receiver], sizes_[link.giver]);
        into_[link.receiver].push_back(static_cast<std::uint32_t>(e));
        out_of_[link.giver].push_back(static_cast<std::uint32_t>(e));
        first_row_.push_back(static_cast<std::uint32_t>(rows));
        rows += sizes_[link.receiver];
        if (rows >= std::numeric_limits<std::uint32_t>::max())
            throw InvalidArgument("the links have 2^32 rows or more");
    }
    n_rows_ = rows;
}

std::uint64_t Network::n_edges() const {
    std::uint64_t edges = 0;
    for (const Link& link : links_) {
        const std::uint64_t givers = sizes_[link.giver], receivers = sizes_[link.receiver];
        switch (link.storage) {
            case Storage::strided: edges += givers * receivers; break;
            case Storage::diagonal: edges += givers; break;
            case Storage::triangle: edges += givers * (givers + 1) / 2; break;
            case Storage::sparse: edges += static_cast<std::uint64_t>(link.starts[receivers]); break;
        }
    }
    return edges;
}

}  // namespace attnflow
