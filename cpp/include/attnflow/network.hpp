// A flow network as its user thinks of it: blocks of nodes joined by links.
//
// A block is one snapshot of a sequence of positions. A link joins two blocks by a matrix of capacities, row = receiver
// j, column = giver k, an edge k -> j where the capacity is positive; or by a diagonal, giver k -> receiver k + offset.
// A matrix is stored whole, as a lower triangle, or by its larger entries (Storage). Capacities are *views*: the network
// reads the caller's memory where it lies and never copies or writes it; entries.hpp is where that memory is read. Blocks
// and links may form any directed graph; the layered networks of attention are the case the algorithms are tuned for,
// not one they rely on.
//
// Of a sparse link, edges may have been dropped. Then the network is that of the kept edges in all respects but one:
// Answer::upper bounds the flow of all edges, from sums of what was dropped (cpp/src/dropped.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "attnflow/types.hpp"

namespace attnflow {

enum class Scalar : std::uint8_t { float32, float64, int32, int64 };

enum class Storage : std::uint8_t {
    strided,   // all entries: (j, k) at data + j * row_stride + k * column_stride, in bytes
    diagonal,  // a vector over givers: edge k -> k + offset at data + k * column_stride
    triangle,  // square, givers 0 ... j of row j, one row behind the other
    sparse     // entries starts[j] ... starts[j + 1] - 1 of row j, one row behind the other, from givers columns[i]
};

struct Link {
    std::uint32_t giver = 0;          // block the edges leave
    std::uint32_t receiver = 0;       // block the edges enter
    Scalar scalar = Scalar::float32;  // type of one capacity
    Storage storage = Storage::strided;
    const std::byte* data = nullptr;
    std::ptrdiff_t row_stride = 0;  // strided
    std::ptrdiff_t column_stride = 0;
    std::int64_t offset = 0;  // diagonal

    const std::int64_t* starts = nullptr;    // sparse: one more than receivers
    const std::uint32_t* columns = nullptr;  // ascending within a row
    // Upper bounds on what was dropped into each receiver, out of each giver; nullptr: nothing was.
    const double* dropped_in = nullptr;
    const double* dropped_out = nullptr;
    bool dropped_causal = false;  // nothing was dropped above the diagonal, from a giver k > j

    bool diagonal() const { return storage == Storage::diagonal; }
};

/// Immutable after construction. Throws InvalidArgument where a link names no block, joins a block to itself, or is no
/// triangle or sparse matrix as Storage has them. O(sparse entries).
class Network {
   public:
    Network(std::vector<std::uint32_t> sizes, std::vector<Link> links);

    std::size_t n_blocks() const { return sizes_.size(); }
    std::size_t n_nodes() const { return n_nodes_; }
    std::size_t n_rows() const { return n_rows_; }
    /// Capacities stored, zeros included.
    std::uint64_t n_edges() const;

    std::uint32_t size(std::size_t block) const { return sizes_[block]; }
    const std::vector<Link>& links() const { return links_; }

    /// Links into / out of a block, by number.
    const std::vector<std::uint32_t>& links_into(std::size_t block) const { return into_[block]; }
    const std::vector<std::uint32_t>& links_out_of(std::size_t block) const { return out_of_[block]; }

    Node first_node(std::size_t block) const { return first_node_[block]; }
    std::uint32_t block_of(Node node) const { return block_of_[node]; }
    std::uint32_t position_of(Node node) const { return node - first_node_[block_of_[node]]; }

    /// Rows number the pairs (link, receiver position) of the whole network.
    std::uint32_t first_row(std::size_t link) const { return first_row_[link]; }

    /// Sets of nodes hold each block's bits from word first_word(block) on.
    std::size_t first_word(std::size_t block) const { return first_word_[block]; }
    std::size_t n_words() const { return n_words_; }
    std::size_t words(std::size_t block) const { return words_for(sizes_[block]); }

   private:
    std::vector<std::uint32_t> sizes_;
    std::vector<Link> links_;
    std::vector<std::vector<std::uint32_t>> into_, out_of_;
    std::vector<Node> first_node_;
    std::vector<std::uint32_t> block_of_;
    std::vector<std::uint32_t> first_row_;
    std::vector<std::size_t> first_word_;
    std::size_t n_nodes_ = 0, n_rows_ = 0, n_words_ = 0;
};

}  // namespace attnflow
