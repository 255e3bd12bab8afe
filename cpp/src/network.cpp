#include "attnflow/network.hpp"

#include <limits>
#include <string>
#include <utility>

#include "attnflow/errors.hpp"

namespace attnflow {

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
        if (link.giver == link.receiver && !link.diagonal)
            throw InvalidArgument("link " + std::to_string(e) + " joins block " + std::to_string(link.giver) +
                                  " to itself");
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
    for (const Link& link : links_)
        edges += link.diagonal ? sizes_[link.giver] : std::uint64_t{sizes_[link.giver]} * sizes_[link.receiver];
    return edges;
}

}  // namespace attnflow
