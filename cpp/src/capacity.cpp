#include "attnflow/capacity.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <type_traits>

#include "attnflow/errors.hpp"

namespace attnflow {
namespace {

// int64 diagonals carry "unbounded" as any value from 2^62 on; floating point carries it as infinity.
template <class T>
bool is_unbounded(T c) {
    if constexpr (std::is_floating_point_v<T>) return c > std::numeric_limits<T>::max();
    return static_cast<std::int64_t>(c) >= unbounded;
}

template <class Visit>
decltype(auto) with_scalar(Scalar scalar, Visit&& visit) {
    switch (scalar) {
        case Scalar::float32: return visit(float{});
        case Scalar::float64: return visit(double{});
        case Scalar::int32: return visit(std::int32_t{});
        case Scalar::int64: break;
    }
    return visit(std::int64_t{});
}

template <class T>
[[noreturn]] void refuse(const Link& link, std::size_t e, std::size_t receiver, std::size_t giver, std::size_t n) {
    for (std::size_t k = giver; k < giver + n; ++k) {
        const T c = load<T>(entry(link, receiver, k));
        if (c >= T{0}) continue;
        std::ostringstream message;
        message << "capacity of link " << e;
        if (link.diagonal)
            message << ", giver " << k << " of a diagonal";
        else
            message << ", receiver " << receiver << ", giver " << k;
        message << " is " << (c < T{0} ? "negative (" : "NaN (") << c << "); capacities must be >= 0";
        throw InvalidCapacity(message.str(), e, receiver, k);
    }
    throw std::logic_error("no offender in a row that has one");
}

// One row's contribution to the survey: n entries `step` apart, contiguous where the compiler may know it.
struct RowSurvey {
    double sum = 0, largest = 0;
    bool bad = false, endless = false;
};

template <class T>
RowSurvey survey_row(const std::byte* row, std::ptrdiff_t step, std::size_t n) {
    RowSurvey out;
    double sum = 0;
    T largest{0};
    bool bad = false;
    const auto scan = [&](auto at) {
        for (std::size_t k = 0; k < n; ++k) {
            const T c = at(k);
            bad |= !(c >= T{0});
            largest = c > largest ? c : largest;
            sum += static_cast<double>(c);
        }
    };
    if (step == static_cast<std::ptrdiff_t>(sizeof(T)))
        scan([&](std::size_t k) { return load<T>(row + k * sizeof(T)); });
    else
        scan([&](std::size_t k) { return load<T>(row + static_cast<std::ptrdiff_t>(k) * step); });
    out.bad = bad;
    out.endless = is_unbounded(largest);
    if (out.endless) {  // rare: keep the finite part apart
        largest = T{0};
        sum = 0;
        for (std::size_t k = 0; k < n; ++k) {
            const T c = load<T>(row + static_cast<std::ptrdiff_t>(k) * step);
            if (is_unbounded(c) || !(c >= T{0})) continue;
            largest = std::max(largest, c);
            sum += static_cast<double>(c);
        }
    }
    out.sum = sum;
    out.largest = static_cast<double>(largest);
    return out;
}

// Bits of up to 64 entries: compare into bytes, which every compiler vectorises, then gather each byte's low bit by a
// multiplication that moves the eight of them next to each other.
template <class T>
Word pack_at_least(const T* c, std::size_t n, T threshold) {
    alignas(64) std::uint8_t flags[word_bits] = {};
    if (n == word_bits)
        for (std::size_t i = 0; i < word_bits; ++i) flags[i] = c[i] >= threshold;
    else
        for (std::size_t i = 0; i < n; ++i) flags[i] = c[i] >= threshold;
    Word word = 0;
    for (std::size_t byte = 0; byte < 8; ++byte) {
        std::uint64_t eight = 0;
        for (std::size_t i = 8; i-- > 0;) eight = eight << 8 | flags[byte * 8 + i];
        word |= (eight * 0x0102040810204080ULL >> 56) << (8 * byte);
    }
    return word;
}

// The smallest T whose quanta reach `threshold`. Thresholds are powers of two, so this is exact, or below every
// positive T.
template <class T>
T smallest_with(Units threshold, const Quantum& quantum) {
    if constexpr (std::is_floating_point_v<T>) {
        const double c = std::ldexp(static_cast<double>(threshold), -quantum.exponent());
        if (c > static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::infinity();
        return std::max(static_cast<T>(c), std::numeric_limits<T>::denorm_min());
    } else {
        return static_cast<T>(threshold);
    }
}

template <class T>
void quantise(const Quantum& quantum, const std::byte* from, std::ptrdiff_t stride, std::size_t n, Units* out) {
    for (std::size_t i = 0; i < n; ++i, from += stride) {
        if constexpr (std::is_floating_point_v<T>)
            out[i] = quantum.floor(static_cast<double>(load<T>(from)));
        else
            out[i] = quantum.floor(static_cast<std::int64_t>(load<T>(from)));
    }
}

void quantise(const Quantum& quantum, Scalar scalar, const std::byte* from, std::ptrdiff_t stride, std::size_t n,
              Units* out) {
    with_scalar(scalar, [&](auto zero) { quantise<decltype(zero)>(quantum, from, stride, n, out); });
}

// A row takes microseconds at most.
void pause_at(std::size_t row, const Pause& pause) {
    if (pause && row % 16 == 0) pause();
}

}  // namespace

CapacitySurvey::CapacitySurvey(const Network& network, const Pause& pause) : row_sum(network.n_rows(), 0.0) {
    const double infinity = std::numeric_limits<double>::infinity();
    for (std::size_t e = 0; e < network.links().size(); ++e) {
        const Link& link = network.links()[e];
        const std::size_t givers = network.size(link.giver), receivers = network.size(link.receiver);
        const bool integer = link.scalar == Scalar::int32 || link.scalar == Scalar::int64;
        if (e > 0 && integer != integers)
            throw InvalidArgument("link " + std::to_string(e) + " and link " + std::to_string(e - 1) +
                                  " mix integers and floating point; links must all be of one kind");
        integers = integer;
        with_scalar(link.scalar, [&](auto zero) {
            using T = decltype(zero);
            const auto take = [&](std::size_t receiver, std::size_t giver, std::size_t n, bool counts) {
                const RowSurvey row = survey_row<T>(entry(link, receiver, giver), link.column_stride, n);
                if (row.bad) refuse<T>(link, e, receiver, giver, n);
                if (!counts) return;
                largest = std::max(largest, row.largest);
                total += row.sum;
                row_sum[network.first_row(e) + receiver] = row.endless ? infinity : row.sum;
            };
            if (!link.diagonal) {
                for (std::size_t j = 0; j < receivers; ++j) {
                    pause_at(j, pause);
                    take(j, 0, givers, true);
                }
                return;
            }
            for (std::size_t k = 0; k < givers; ++k) {  // entries that point outside the block are read, not used
                const std::int64_t j = static_cast<std::int64_t>(k) + link.offset;
                const bool inside = j >= 0 && j < static_cast<std::int64_t>(receivers);
                take(inside ? static_cast<std::size_t>(j) : 0, k, 1, inside);
            }
        });
    }
}

Quantum::Quantum(double flow_bound, double parallel, bool integers) {
    // Sums of float64 may be off in the last bits: a margin keeps the bound a bound.
    const double bound = flow_bound * (1 + 1e-6);
    if (!std::isfinite(bound * parallel))
        throw CapacityOverflow("the capacities into a sink sum to more than a float64 holds; scale them down");
    int magnitude = 0;
    std::frexp(bound * parallel, &magnitude);  // bound * parallel <= 2^magnitude
    if (integers) {
        if (magnitude > 61)
            throw CapacityOverflow("integer capacities sum to " + std::to_string(flow_bound) +
                                   ", but exact flows must stay below 2^61");
    } else if (bound > 0) {
        exponent_ = 61 - magnitude;
    }
    scale_ = std::ldexp(1.0, exponent_);
    flow_limit_ = static_cast<Units>(std::ceil(std::min(in_quanta(bound), 0x1p61)));
}

double Quantum::nearest(Units units) const { return std::ldexp(static_cast<double>(units), -exponent_); }

double Quantum::lower(Units units) const {
    double x = static_cast<double>(units);
    if (static_cast<Units>(x) > units) x = std::nextafter(x, -1.0);
    const double result = std::ldexp(x, -exponent_);  // rounds among subnormals
    return in_quanta(result) > x ? std::nextafter(result, -1.0) : result;
}

double Quantum::upper(Units units) const {
    const double infinity = std::numeric_limits<double>::infinity();
    double x = static_cast<double>(units);
    if (static_cast<Units>(x) < units) x = std::nextafter(x, infinity);
    const double result = std::ldexp(x, -exponent_);
    return in_quanta(result) < x ? std::nextafter(result, infinity) : result;
}

CapacityIndex::CapacityIndex(const Network& network, const CapacitySurvey& survey, const Quantum& quantum,
                             const Pause& pause)
    : network_(network), quantum_(quantum), index_(network.links().size()) {
    // Scales 2^5 and 2^10 below the largest capacity, then everything: attention spans many orders of magnitude, and a
    // flow routed on the fat edges first needs far fewer paths. docs/design/kernel.md has the other choices measured.
    const Units top = std::bit_floor(static_cast<std::uint64_t>(std::max<Units>(quantum_.floor(survey.largest), 1)));
    for (std::size_t s = 0; s + 1 < n_scales; ++s) thresholds_[s] = std::max<Units>(top >> (5 * (s + 1)), 1);
    thresholds_[n_scales - 1] = 1;

    std::size_t total = 0;
    for (std::size_t e = 0; e < index_.size(); ++e) {
        const Link& link = network.links()[e];
        index_[e].first_word = total;
        if (link.diagonal) continue;
        index_[e].rows = network.size(link.receiver);
        index_[e].words = network.words(link.giver);
        total += n_scales * index_[e].rows * index_[e].words;
    }
    bits_.assign(total, 0);

    for (std::size_t e = 0; e < index_.size(); ++e) {
        const Link& link = network.links()[e];
        LinkIndex& index = index_[e];
        const std::size_t givers = network.size(link.giver);
        const bool straight = link.offset == 0 && givers == network.size(link.receiver);
        if (straight)
            for (std::size_t k = 0; k < givers; ++k) index.straight.push_back(read(link, k, k));
        if (straight && !link.diagonal) {
            index.straight_bits.assign(index.words, 0);
            for (std::size_t k = 0; k < givers; ++k)
                if (index.straight[k] > 0) set_bit(index.straight_bits.data(), k);
        }
        with_scalar(link.scalar, [&](auto zero) {
            using T = decltype(zero);
            const auto check_exact = [&](const T* c, std::size_t n) {
                if constexpr (std::is_floating_point_v<T>) {
                    bool exact = true;
                    for (std::size_t i = 0; i < n; ++i) exact &= quantum_.exact(static_cast<double>(c[i]));
                    if (exact) return;
                    all_exact_ = false;
                    for (std::size_t i = 0; i < n; ++i)
                        n_vanished_ += c[i] > T{0} && quantum_.floor(static_cast<double>(c[i])) == 0;
                }
            };
            std::array<T, word_bits> chunk{};
            if (link.diagonal) {
                for (std::size_t k = 0; k < givers; ++k) {
                    const std::int64_t j = static_cast<std::int64_t>(k) + link.offset;
                    if (j < 0 || j >= static_cast<std::int64_t>(network.size(link.receiver))) continue;
                    const T c = load<T>(entry(link, 0, k));
                    check_exact(&c, 1);
                }
                return;
            }
            std::array<T, n_scales> at_least{};
            std::size_t coarsest = n_scales;  // beyond an int32's range there are no bits to set
            while (coarsest > 0 && (!std::is_same_v<T, std::int32_t> ||
                                    thresholds_[coarsest - 1] <= std::numeric_limits<std::int32_t>::max()))
                --coarsest;
            for (std::size_t s = coarsest; s < n_scales; ++s) at_least[s] = smallest_with<T>(thresholds_[s], quantum_);
            for (std::size_t j = 0; j < index.rows; ++j) {
                pause_at(j, pause);
                for (std::size_t w = 0; w < index.words; ++w) {
                    const std::size_t first = w * word_bits, n = std::min(word_bits, givers - first);
                    const std::byte* row = entry(link, j, first);
                    if (link.column_stride == static_cast<std::ptrdiff_t>(sizeof(T)))
                        std::memcpy(chunk.data(), row, n * sizeof(T));
                    else
                        for (std::size_t i = 0; i < n; ++i)
                            chunk[i] = load<T>(row + static_cast<std::ptrdiff_t>(i) * link.column_stride);
                    // Nothing at a fine scale: nothing at a coarse one. Half of a causal matrix ends here.
                    for (std::size_t s = n_scales; s-- > coarsest;) {
                        const Word word = pack_at_least(chunk.data(), n, at_least[s]);
                        if (word == 0) break;
                        bits_[index.first_word + (s * index.rows + j) * index.words + w] = word;
                    }
                    check_exact(chunk.data(), n);
                }
            }
        });
    }
}

bool CapacityIndex::exact(std::size_t link, std::size_t receiver, std::size_t giver) const {
    const Link& view = network_.links()[link];
    const std::byte* where = entry(view, receiver, giver);
    switch (view.scalar) {
        case Scalar::float32: return quantum_.exact(static_cast<double>(load<float>(where)));
        case Scalar::float64: return quantum_.exact(load<double>(where));
        case Scalar::int32:
        case Scalar::int64: break;
    }
    return true;
}

void CapacityIndex::row(std::size_t link, std::size_t receiver, Units* out) const {
    const Link& view = network_.links()[link];
    quantise(quantum_, view.scalar, entry(view, receiver, 0), view.column_stride, network_.size(view.giver), out);
}

void CapacityIndex::column(std::size_t link, std::size_t giver, Units* out) const {
    const Link& view = network_.links()[link];
    quantise(quantum_, view.scalar, entry(view, 0, giver), view.row_stride, network_.size(view.receiver), out);
}

std::size_t CapacityIndex::bytes() const {
    std::size_t total = bits_.size() * sizeof(Word);
    for (const LinkIndex& index : index_)
        total += index.straight.size() * sizeof(Units) + index.straight_bits.size() * sizeof(Word);
    return total;
}

}  // namespace attnflow
