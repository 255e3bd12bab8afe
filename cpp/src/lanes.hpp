// Eight units side by side, and the instruction sets they are compiled for.
//
// Functions marked ATTNFLOW_DISPATCH are compiled for AVX-512, AVX2 and the baseline, and the loader picks one. All
// arithmetic on units is that of integers, so every variant gives the same answers. Other compilers and processors get
// one variant; what that costs is a matter of their vector units.
#pragma once

#include <cstring>

#include "attnflow/types.hpp"

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) && defined(__gnu_linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Sanitizers need their own start-up before the loader may run what they instrument.
#define ATTNFLOW_DISPATCH __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ATTNFLOW_DISPATCH
#endif
#if defined(__GNUC__)
#define ATTNFLOW_INLINE inline __attribute__((always_inline))
#define ATTNFLOW_INLINE_LAMBDA __attribute__((always_inline))
#else
#define ATTNFLOW_INLINE inline
#define ATTNFLOW_INLINE_LAMBDA
#endif

namespace attnflow {

inline constexpr std::size_t n_lanes = 8;
constexpr std::size_t round_to_lanes(std::size_t n) { return (n + n_lanes - 1) / n_lanes * n_lanes; }

/// The obvious twin: arrays of eight and loops over them.
struct PlainLanes {
    Units lane[n_lanes];

    static PlainLanes load(const Units* from) {
        PlainLanes out;
        std::memcpy(out.lane, from, sizeof out.lane);
        return out;
    }
    static PlainLanes all(Units value) {
        PlainLanes out;
        for (Units& lane : out.lane) lane = value;
        return out;
    }
    /// floor(c * scale), at most `most`.
    static PlainLanes quantise(const float* c, double scale, Units most) {
        PlainLanes out;
        for (std::size_t i = 0; i < n_lanes; ++i) {
            const double x = static_cast<double>(c[i]) * scale;
            out.lane[i] = x >= static_cast<double>(most) ? most : static_cast<Units>(x);
        }
        return out;
    }
    void store(Units* to) const { std::memcpy(to, lane, sizeof lane); }
    Units operator[](std::size_t i) const { return lane[i]; }

    friend PlainLanes operator+(PlainLanes a, const PlainLanes& b) {
        for (std::size_t i = 0; i < n_lanes; ++i) a.lane[i] += b.lane[i];
        return a;
    }
    friend PlainLanes operator-(PlainLanes a, const PlainLanes& b) {
        for (std::size_t i = 0; i < n_lanes; ++i) a.lane[i] -= b.lane[i];
        return a;
    }
    static PlainLanes min(PlainLanes a, const PlainLanes& b) {
        for (std::size_t i = 0; i < n_lanes; ++i) a.lane[i] = b.lane[i] < a.lane[i] ? b.lane[i] : a.lane[i];
        return a;
    }
    static PlainLanes max(PlainLanes a, const PlainLanes& b) {
        for (std::size_t i = 0; i < n_lanes; ++i) a.lane[i] = b.lane[i] > a.lane[i] ? b.lane[i] : a.lane[i];
        return a;
    }
    PlainLanes halved(int times) const {
        PlainLanes out = *this;
        for (Units& each : out.lane) each >>= times;
        return out;
    }
    /// Lane i becomes the sum of lanes 0 ... i.
    PlainLanes running_sum() const {
        PlainLanes out = *this;
        for (std::size_t i = 1; i < n_lanes; ++i) out.lane[i] += out.lane[i - 1];
        return out;
    }
    static void transpose(PlainLanes* rows) {
        for (std::size_t i = 0; i < n_lanes; ++i)
            for (std::size_t k = 0; k < i; ++k) {
                const Units above = rows[k].lane[i];
                rows[k].lane[i] = rows[i].lane[k];
                rows[i].lane[k] = above;
            }
    }
    bool any() const {
        Units all = 0;
        for (const Units each : lane) all |= each;
        return all != 0;
    }
};

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
/// The same on vector registers: AVX-512, AVX2, SSE, NEON, as the processor has it.
struct VectorLanes {
    using Vector = Units __attribute__((vector_size(n_lanes * sizeof(Units)), aligned(8)));
    Vector v;

    static ATTNFLOW_INLINE VectorLanes load(const Units* from) {
        VectorLanes out;
        std::memcpy(&out.v, from, sizeof out.v);
        return out;
    }
    static ATTNFLOW_INLINE VectorLanes all(Units x) {
        Vector first{};
        first[0] = x;  // GCC 12 fills in a list of eight x lane by lane
        return {__builtin_shufflevector(first, first, 0, 0, 0, 0, 0, 0, 0, 0)};
    }
    static ATTNFLOW_INLINE VectorLanes quantise(const float* c, double scale, Units most) {
        using Floats = float __attribute__((vector_size(n_lanes * sizeof(float))));
        using Doubles = double __attribute__((vector_size(n_lanes * sizeof(double))));
        Floats narrow;
        std::memcpy(&narrow, c, sizeof narrow);
        const Doubles x = __builtin_convertvector(narrow, Doubles) * scale;
        // `most` itself need not be a float64: from there on the integers are compared.
        const Doubles bound = Doubles{} + static_cast<double>(unbounded);
        return min({__builtin_convertvector(x < bound ? x : bound, Vector)}, all(most));
    }
    ATTNFLOW_INLINE void store(Units* to) const { std::memcpy(to, &v, sizeof v); }
    ATTNFLOW_INLINE Units operator[](std::size_t i) const { return v[i]; }

    friend ATTNFLOW_INLINE VectorLanes operator+(const VectorLanes& a, const VectorLanes& b) { return {a.v + b.v}; }
    friend ATTNFLOW_INLINE VectorLanes operator-(const VectorLanes& a, const VectorLanes& b) { return {a.v - b.v}; }
    static ATTNFLOW_INLINE VectorLanes min(const VectorLanes& a, const VectorLanes& b) {
        return {a.v < b.v ? a.v : b.v};
    }
    static ATTNFLOW_INLINE VectorLanes max(const VectorLanes& a, const VectorLanes& b) {
        return {a.v > b.v ? a.v : b.v};
    }
    ATTNFLOW_INLINE VectorLanes halved(int times) const { return {v >> times}; }
    ATTNFLOW_INLINE VectorLanes running_sum() const {
        const Vector zero{};
        Vector sum = v;
        sum += __builtin_shufflevector(sum, zero, 8, 0, 1, 2, 3, 4, 5, 6);
        sum += __builtin_shufflevector(sum, zero, 8, 8, 0, 1, 2, 3, 4, 5);
        sum += __builtin_shufflevector(sum, zero, 8, 8, 8, 8, 0, 1, 2, 3);
        return {sum};
    }
    static ATTNFLOW_INLINE void transpose(VectorLanes* rows) {
        for (std::size_t i = 0; i < 4; ++i) {
            const Vector a = rows[i].v, b = rows[i + 4].v;
            rows[i].v = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11);
            rows[i + 4].v = __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
        }
        for (const std::size_t i : {0, 1, 4, 5}) {
            const Vector a = rows[i].v, b = rows[i + 2].v;
            rows[i].v = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
            rows[i + 2].v = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
        }
        for (std::size_t i = 0; i < n_lanes; i += 2) {
            const Vector a = rows[i].v, b = rows[i + 1].v;
            rows[i].v = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
            rows[i + 1].v = __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
        }
    }
    ATTNFLOW_INLINE bool any() const {
        const Vector some = v | __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
        const Vector more = some | __builtin_shufflevector(some, some, 2, 3, 0, 1, 6, 7, 4, 5);
        return (more[0] | more[1]) != 0;
    }
};
using Lanes = VectorLanes;
#else
using Lanes = PlainLanes;
#endif

}  // namespace attnflow
