// Basic vocabulary of the kernel: node numbers, capacities in quanta, sets of nodes as bits.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace attnflow {

/// A node of the whole network: offset of its block plus its position in the block.
using Node = std::uint32_t;

/// A capacity or a flow in quanta (see capacity.hpp). Signed, so that differences need no care.
using Units = std::int64_t;

/// Stands for "no limit". Every finite flow is smaller: quantisation guarantees it.
inline constexpr Units unbounded = Units{1} << 62;

/// a + b, or `unbounded` where that is less; neither may exceed `unbounded`.
constexpr Units saturating_sum(Units a, Units b) { return a >= unbounded - b ? unbounded : a + b; }

/// Sets of nodes are arrays of 64-bit words, bit i of word w being position 64 w + i of a block.
using Word = std::uint64_t;
inline constexpr std::size_t word_bits = 64;

constexpr std::size_t words_for(std::size_t bits) { return (bits + word_bits - 1) / word_bits; }

inline bool test_bit(const Word* words, std::size_t i) { return (words[i / word_bits] >> (i % word_bits)) & 1U; }
inline void set_bit(Word* words, std::size_t i) { words[i / word_bits] |= Word{1} << (i % word_bits); }
inline void clear_bit(Word* words, std::size_t i) { words[i / word_bits] &= ~(Word{1} << (i % word_bits)); }

/// Word w of the set of all positions of a block of `size` nodes.
constexpr Word word_of_all(std::size_t w, std::size_t size) {
    const std::size_t left = size - w * word_bits;
    return left >= word_bits ? ~Word{0} : (Word{1} << left) - 1;
}

/// Calls visit(position) for every bit of `word`, which starts at position `base`.
template <class Visit>
inline void for_each_bit(Word word, std::size_t base, Visit&& visit) {
    while (word != 0) {
        visit(base + static_cast<std::size_t>(std::countr_zero(word)));
        word &= word - 1;
    }
}

}  // namespace attnflow
