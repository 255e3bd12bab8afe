// Breadth-first levels of the residual network, word-parallel.
//
// level(v) = number of residual arcs on a shortest path from the source set to v, counting only arcs with a residual of
// at least Residual::threshold(). A frontier is a set of bits a block; an unvisited node of a block that a frontier
// feeds joins the next level when its row of bits meets the frontier: one AND a word, and usually the first word
// decides. Edges that carry flow into the frontier are the backward arcs, and come from the records.
//
// After run(), at(d, b) gives the nodes of block b on level d, or nullptr. Dinic's search clears a node's bit there
// when the node turns out to be a dead end. visited() is the source side of a minimum cut when no sink was reached.
#pragma once

#include <cstdint>
#include <vector>

#include "pulse.hpp"
#include "residual.hpp"

namespace attnflow {

/// Nodes by level, a set of bits a block.
class LevelSets {
   public:
    /// Levels that at() may be asked for.
    std::size_t n_levels() const { return table_.size() / n_blocks_; }
    Word* at(std::size_t level, std::size_t block) {
        const std::uint32_t offset = table_[level * n_blocks_ + block].offset;
        return offset != 0 ? words_.data() + (offset - 1) : nullptr;
    }
    /// The words low <= w < high of at(level, block) hold all its nodes.
    struct Range {
        std::uint32_t low, high;
    };
    Range range(std::size_t level, std::size_t block) const { return table_[level * n_blocks_ + block].range; }

   protected:
    explicit LevelSets(const Network& network) : network_(network), n_blocks_(network.n_blocks()) {}

    /// Level 0 and nobody on it.
    void clear() {
        words_.clear();
        table_.assign(n_blocks_, Slot{});
        next_frontier_.clear();
    }
    void add_level() { table_.resize(table_.size() + n_blocks_); }
    /// The words of (level, block), made empty where they are new. May move words_.
    Word* open(std::size_t level, std::uint32_t block);
    /// Notes which words of a finished level hold nodes, and forgets the blocks where none was found.
    void close(std::size_t level);

    const Network& network_;
    std::size_t n_blocks_;
    std::vector<std::uint32_t> frontier_, next_frontier_;  // blocks with nodes on the level

   private:
    struct Slot {
        std::uint32_t offset = 0;  // 1 + first word in words_, 0 = no such node
        Range range{0, 0};
    };
    std::vector<Slot> table_;  // [level][block]
    std::vector<Word> words_;
};

class Levels : public LevelSets {
   public:
    Levels(const Network& network, Pulse& pulse);

    /// Explores from `sources` until a node of `sinks` is reached or nothing is left; the level that reaches it is
    /// completed. All are node sets of Network::n_words() words; nodes of `excluded` are not entered, and count as
    /// visited. Returns the sinks' level, or 0: unreachable.
    std::size_t run(const Residual& residual, const std::vector<Word>& sources, const std::vector<Word>& sinks,
                    const std::vector<Word>& excluded);

    /// Explores all that `sources` reach; visited() is that set.
    void explore(const Residual& residual, const std::vector<Word>& sources) {
        run(residual, sources, no_nodes_, no_nodes_);
    }
    /// The same without entering `excluded`, which count as visited.
    void explore(const Residual& residual, const std::vector<Word>& sources, const std::vector<Word>& excluded) {
        run(residual, sources, no_nodes_, excluded);
    }

    const std::vector<Word>& visited() const { return visited_; }

   private:
    void visit(std::size_t level, std::uint32_t block, std::size_t position);
    void expand(const Residual& residual, std::size_t level, std::uint32_t block);
    void expand_dense(const Residual& residual, std::size_t level, std::uint32_t block, std::uint32_t link);
    void expand_diagonal(const Residual& residual, std::size_t level, std::uint32_t block, std::uint32_t link);
    void expand_backward(const Residual& residual, std::size_t level, std::uint32_t block);
    bool all_visited(std::uint32_t block) const;

    Pulse& pulse_;
    std::vector<Word> visited_;   // [Network word]
    std::vector<Word> no_nodes_;  // an empty set
};

/// Nodes that can be reached from some source over edges of positive capacity, sources included. What Levels would find
/// in an empty residual network, faster: a node that is reached straight is found 64 at a time.
void nodes_reached(const CapacityIndex& capacities, const std::vector<Word>& sources, std::vector<Word>& reached,
                   Pulse& pulse);

/// Nodes from which some sink can be reached over edges of positive capacity, sinks included.
std::vector<Word> nodes_reaching(const CapacityIndex& capacities, const std::vector<Word>& sinks, Pulse& pulse);

/// The same over arcs of a residual of at least its threshold: after a maximum flow, at the finest scale, the sink side of
/// the minimum cut nearest the sink.
std::vector<Word> nodes_reaching(const Residual& residual, const std::vector<Word>& sinks);

}  // namespace attnflow
