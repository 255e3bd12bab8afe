#include "attnflow/capacity.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <string>
#include <type_traits>

#include "attnflow/errors.hpp"
#include "lanes.hpp"
#include "parallel.hpp"

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
[[noreturn]] void refuse(const Link& link, std::size_t e, std::size_t receiver, const StoredRow& row) {
    for (std::size_t i = 0; i < row.n; ++i) {
        const T c = load<T>(row.entry(i));
        if (c >= T{0}) continue;
        std::ostringstream message;
        message << "capacity of link " << e;
        if (link.diagonal())
            message << ", giver " << row.giver(i) << " of a diagonal";
        else
            message << ", receiver " << receiver << ", giver " << row.giver(i);
        message << " is " << (c < T{0} ? "negative (" : "NaN (") << c << "); capacities must be >= 0";
        throw InvalidCapacity(message.str(), e, receiver, row.giver(i));
    }
    throw std::logic_error("no offender in a row that has one");
}

// One row's contribution to the survey.
struct RowSurvey {
    double sum = 0, largest = 0, smallest = std::numeric_limits<double>::infinity();
    bool bad = false, endless = false;
};

// n entries that `at` reads, eight sums side by side: in the same order whatever the instruction set.
template <class T, class At>
ATTNFLOW_INLINE RowSurvey survey_entries(std::size_t n, const At& at) {
    constexpr std::size_t width = 8;
    const T most = std::numeric_limits<T>::max();
    double sums[width] = {};
    T largest[width] = {}, smallest[width];
    unsigned bad[width] = {};
    for (T& each : smallest) each = most;
    const auto take = [&](std::size_t lane, T c) ATTNFLOW_INLINE_LAMBDA {
        bad[lane] |= static_cast<unsigned>(!(c >= T{0}));
        largest[lane] = c > largest[lane] ? c : largest[lane];
        smallest[lane] = (c > T{0} ? c : most) < smallest[lane] ? (c > T{0} ? c : most) : smallest[lane];
        sums[lane] += static_cast<double>(c);
    };
    std::size_t k = 0;
    for (; k + width <= n; k += width)
        for (std::size_t lane = 0; lane < width; ++lane) take(lane, at(k + lane));
    for (; k < n; ++k) take(k % width, at(k));
    RowSurvey out;
    for (std::size_t lane = 0; lane < width; ++lane) {
        out.sum += sums[lane];
        out.largest = std::max(out.largest, static_cast<double>(largest[lane]));
        out.smallest = std::min(out.smallest, static_cast<double>(smallest[lane]));
        out.bad = out.bad || bad[lane] != 0;
        out.endless = out.endless || is_unbounded(largest[lane]);
    }
    return out;
}

// The same for contiguous float32. Floats that are not negative are in the order of their bits, and the bits of all others
// are larger: minima and maxima of integers, which compilers vectorise, say as much.
ATTNFLOW_DISPATCH RowSurvey survey_floats(const std::byte* row, std::size_t n) {
    constexpr std::uint32_t infinity = 0x7F800000;
    std::uint32_t most = 0, least = ~std::uint32_t{0};
    for (std::size_t k = 0; k < n; ++k) {
        const auto bits = load<std::uint32_t>(row + k * sizeof(float));
        most = bits > most ? bits : most;
        least = bits - 1 < least ? bits - 1 : least;  // a zero wraps around
    }
    if (most >= infinity || n < 8)
        return survey_entries<float>(n, [&](std::size_t k) { return load<float>(row + k * sizeof(float)); });
    double sums[8] = {};
    std::size_t k = 0;
    for (; k + 8 <= n; k += 8)
        for (std::size_t lane = 0; lane < 8; ++lane)
            sums[lane] += static_cast<double>(load<float>(row + (k + lane) * sizeof(float)));
    for (; k < n; ++k) sums[k % 8] += static_cast<double>(load<float>(row + k * sizeof(float)));
    RowSurvey out;
    for (const double sum : sums) out.sum += sum;
    out.largest = static_cast<double>(std::bit_cast<float>(most));
    if (least != ~std::uint32_t{0}) out.smallest = static_cast<double>(std::bit_cast<float>(least + 1));
    return out;
}

template <class T>
RowSurvey survey_row(const std::byte* row, std::ptrdiff_t step, std::size_t n) {
    const auto at = [&](std::size_t k) { return load<T>(row + static_cast<std::ptrdiff_t>(k) * step); };
    RowSurvey out = std::is_same_v<T, float> && step == static_cast<std::ptrdiff_t>(sizeof(T))
                        ? survey_floats(row, n)
                        : survey_entries<T>(n, at);
    if (out.endless) {  // rare: keep the finite part apart
        out.sum = out.largest = 0;
        for (std::size_t k = 0; k < n; ++k) {
            if (is_unbounded(at(k)) || !(at(k) >= T{0})) continue;
            out.largest = std::max(out.largest, static_cast<double>(at(k)));
            out.sum += static_cast<double>(at(k));
        }
    }
    return out;
}

// Bits of up to 64 entries: compare into bytes, which every compiler vectorises, then gather each byte's low bit by a
// multiplication that moves the eight of them next to each other.
template <class T>
ATTNFLOW_INLINE Word pack_at_least(const T* c, std::size_t n, T threshold) {
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

// A row's bits at several thresholds, the finest last; returns which words hold any. out[s] is where those of scale s go.
template <class T, std::size_t n_scales>
ATTNFLOW_INLINE CapacityIndex::Range pack_row(const T* row, std::size_t n, const std::array<T, n_scales>& at_least,
                                              std::size_t coarsest, const std::array<Word*, n_scales>& out) {
    CapacityIndex::Range range{~std::uint32_t{0}, 0};
    for (std::size_t w = 0; w < words_for(n); ++w) {
        const std::size_t first = w * word_bits, here = std::min(word_bits, n - first);
        // Nothing at a fine scale: nothing at a coarse one. Half of a causal matrix ends here.
        for (std::size_t s = n_scales; s-- > coarsest;) {
            const Word word = pack_at_least(row + first, here, at_least[s]);
            if (word == 0) break;
            out[s][w] = word;
            if (s + 1 < n_scales) continue;
            range.low = std::min(range.low, static_cast<std::uint32_t>(w));
            range.high = static_cast<std::uint32_t>(w) + 1;
        }
    }
    return range;
}

using FloatThresholds = std::array<float, CapacityIndex::n_scales>;
using RowsOfBits = std::array<Word*, CapacityIndex::n_scales>;
ATTNFLOW_DISPATCH CapacityIndex::Range pack_floats(const float* row, std::size_t n, const FloatThresholds& at_least,
                                                   const RowsOfBits& out) {
    return pack_row<float, CapacityIndex::n_scales>(row, n, at_least, 0, out);
}

// The same where entry i belongs to giver columns[i].
template <class T, std::size_t n_scales>
CapacityIndex::Range mark(const T* row, const std::uint32_t* columns, std::size_t n,
                          const std::array<T, n_scales>& at_least, std::size_t coarsest,
                          const std::array<Word*, n_scales>& out) {
    CapacityIndex::Range range{~std::uint32_t{0}, 0};
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t s = n_scales; s-- > coarsest && row[i] >= at_least[s];) {
            set_bit(out[s], columns[i]);
            const auto w = static_cast<std::uint32_t>(columns[i] / word_bits);
            range = {std::min(range.low, w), std::max(range.high, w + 1)};
        }
    return range;
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

// All rows of a link, and the sum of each.
RowSurvey survey_link(const Network& network, std::size_t e, const Pause& pause, double* row_sum) {
    const double infinity = std::numeric_limits<double>::infinity();
    const Link& link = network.links()[e];
    const std::size_t givers = network.size(link.giver), receivers = network.size(link.receiver);
    RowSurvey all;
    with_scalar(link.scalar, [&](auto zero) {
        using T = decltype(zero);
        const auto take = [&](std::size_t receiver, const StoredRow& entries, bool counts) {
            const RowSurvey row = survey_row<T>(entries.first, entries.step, entries.n);
            if (row.bad) refuse<T>(link, e, receiver, entries);
            if (!counts) return;
            all.largest = std::max(all.largest, row.largest);
            all.smallest = std::min(all.smallest, row.smallest);
            const double dropped = link.dropped_in != nullptr ? link.dropped_in[receiver] : 0;
            all.sum += row.sum + dropped;
            row_sum[receiver] = row.endless ? infinity : row.sum + dropped;
        };
        if (!link.diagonal()) {
            for (std::size_t j = 0; j < receivers; ++j) {
                pause_at(j, pause);
                take(j, stored_row(link, j, givers), true);
            }
            return;
        }
        for (std::uint32_t k = 0; k < givers; ++k) {  // entries that point outside the block are read, not used
            const std::int64_t j = static_cast<std::int64_t>(k) + link.offset;
            const bool inside = j >= 0 && j < static_cast<std::int64_t>(receivers);
            take(inside ? static_cast<std::size_t>(j) : 0, {entry(link, 0, k), 0, 1, &k}, inside);
        }
    });
    return all;
}

}  // namespace

CapacitySurvey::CapacitySurvey(const Network& network, const Pause& pause, unsigned threads)
    : row_sum(network.n_rows(), 0.0) {
    const auto integer = [](const Link& link) { return link.scalar == Scalar::int32 || link.scalar == Scalar::int64; };
    const std::vector<Link>& links = network.links();
    for (std::size_t e = 1; e < links.size(); ++e)
        if (integer(links[e]) != integer(links[e - 1]))
            throw InvalidArgument("link " + std::to_string(e) + " and link " + std::to_string(e - 1) +
                                  " mix integers and floating point; links must all be of one kind");
    if (!links.empty()) integers = integer(links[0]);
    std::vector<RowSurvey> all(links.size());  // of a link each
    for_each_part(links.size(), threads, pause, [&](std::size_t e, const Pause& own) {
        all[e] = survey_link(network, e, own, row_sum.data() + network.first_row(e));
    });
    for (const RowSurvey& link : all) {  // in one order, whoever was first: sums round
        largest = std::max(largest, link.largest);
        smallest = std::min(smallest, link.smallest);
        total += link.sum;
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
                             const Pause& pause, unsigned threads)
    : network_(network), quantum_(quantum), index_(network.links().size()) {
    // What is no less than 2^-10 of the largest capacity, then everything: attention spans many orders of magnitude, and a
    // flow routed on the fat edges first uses fewer. docs/design/kernel.md has the other choices measured.
    const Units top = std::bit_floor(static_cast<std::uint64_t>(std::max<Units>(quantum_.floor(survey.largest), 1)));
    for (std::size_t s = 0; s + 1 < n_scales; ++s) thresholds_[s] = std::max<Units>(top >> (10 * (s + 1)), 1);
    thresholds_[n_scales - 1] = 1;

    std::size_t total = 0;
    for (std::size_t e = 0; e < index_.size(); ++e) {
        const Link& link = network.links()[e];
        index_[e].first_word = total;
        if (link.diagonal()) continue;
        index_[e].rows = network.size(link.receiver);
        index_[e].words = network.words(link.giver);
        total += n_scales * index_[e].rows * index_[e].words;
    }
    bits_.assign(total, 0);
    for_each_part(index_.size(), threads, pause, [&](std::size_t e, const Pause& own) { index_link(e, survey, own); });
    for (const LinkIndex& index : index_) {
        all_exact_ = all_exact_ && index.exact;
        n_vanished_ += index.n_vanished;
    }
}

void CapacityIndex::index_link(std::size_t e, const CapacitySurvey& survey, const Pause& pause) {
    const Link& link = network_.links()[e];
    LinkIndex& index = index_[e];
    const std::size_t givers = network_.size(link.giver);
    const bool straight = link.offset == 0 && givers == network_.size(link.receiver);
    if (straight)
        for (std::size_t k = 0; k < givers; ++k) {
            const std::byte* where = entry(link, k, k);
            index.straight.push_back(where != nullptr ? read(link.scalar, where) : 0);
        }
    if (straight && !link.diagonal()) {
        index.straight_bits.assign(index.words, 0);
        for (std::size_t k = 0; k < givers; ++k)
            if (index.straight[k] > 0) set_bit(index.straight_bits.data(), k);
    }
    with_scalar(link.scalar, [&](auto zero) {
        using T = decltype(zero);
        // From here on every T is a whole number of quanta.
        const double exact_from = std::ldexp(1.0, std::numeric_limits<T>::digits - 1 - quantum_.exponent());
        const bool check =
            std::is_floating_point_v<T> &&
            !(survey.smallest >= exact_from && exact_from >= static_cast<double>(std::numeric_limits<T>::min()));
        const auto check_exact = [&](const T* c, std::size_t n) {
            if constexpr (std::is_floating_point_v<T>) {
                bool exact = true;
                for (std::size_t i = 0; i < n; ++i) exact &= quantum_.exact(static_cast<double>(c[i]));
                if (exact) return;
                index.exact = false;
                for (std::size_t i = 0; i < n; ++i)
                    index.n_vanished += c[i] > T{0} && quantum_.floor(static_cast<double>(c[i])) == 0;
            }
        };
        if (link.diagonal()) {
            for (std::size_t k = 0; k < givers; ++k) {
                const std::int64_t j = static_cast<std::int64_t>(k) + link.offset;
                if (j < 0 || j >= static_cast<std::int64_t>(network_.size(link.receiver))) continue;
                const T c = load<T>(entry(link, 0, k));
                if (check) check_exact(&c, 1);
            }
            return;
        }
        std::array<T, n_scales> at_least{};
        std::size_t coarsest = n_scales;  // beyond an int32's range there are no bits to set
        while (coarsest > 0 && (!std::is_same_v<T, std::int32_t> ||
                                thresholds_[coarsest - 1] <= std::numeric_limits<std::int32_t>::max()))
            --coarsest;
        for (std::size_t s = coarsest; s < n_scales; ++s) at_least[s] = smallest_with<T>(thresholds_[s], quantum_);
        std::vector<T> row(givers);  // aligned and contiguous, which the caller's need not be
        index.extents.assign(words_for(index.rows), {static_cast<std::uint32_t>(index.words), 0});
        for (std::size_t j = 0; j < index.rows; ++j) {
            pause_at(j, pause);
            const StoredRow given = stored_row(link, j, givers);
            if (given.n == 0) continue;
            if (given.step == static_cast<std::ptrdiff_t>(sizeof(T)))
                std::memcpy(row.data(), given.first, given.n * sizeof(T));
            else
                for (std::size_t i = 0; i < given.n; ++i) row[i] = load<T>(given.entry(i));
            RowsOfBits out;
            for (std::size_t s = 0; s < n_scales; ++s)
                out[s] = bits_.data() + index.first_word + (s * index.rows + j) * index.words;
            Range range;
            if (given.columns != nullptr)
                range = mark(row.data(), given.columns, given.n, at_least, coarsest, out);
            else if constexpr (std::is_same_v<T, float>)
                range = pack_floats(row.data(), given.n, at_least, out);
            else
                range = pack_row<T, n_scales>(row.data(), given.n, at_least, coarsest, out);
            Range& extent = index.extents[j / word_bits];
            if (range.low < range.high) extent = {std::min(extent.low, range.low), std::max(extent.high, range.high)};
            if (check) check_exact(row.data(), given.n);
        }
    });
}

Units CapacityIndex::read_stored(std::size_t link, std::size_t receiver, std::size_t giver) const {
    const Link& view = network_.links()[link];
    // A bit is found sooner than an entry, and most are not set.
    if (view.storage == Storage::sparse && !test_bit(bits(n_scales - 1, link, receiver), giver)) return 0;
    const std::byte* where = entry(view, receiver, giver);
    return where != nullptr ? read(view.scalar, where) : 0;
}

bool CapacityIndex::exact(std::size_t link, std::size_t receiver, std::size_t giver) const {
    const Link& view = network_.links()[link];
    const std::byte* where = entry(view, receiver, giver);
    if (where == nullptr) return true;
    switch (view.scalar) {
        case Scalar::float32: return quantum_.exact(static_cast<double>(load<float>(where)));
        case Scalar::float64: return quantum_.exact(load<double>(where));
        case Scalar::int32:
        case Scalar::int64: break;
    }
    return true;
}

void CapacityIndex::stretch(std::size_t link, std::size_t receiver, std::size_t first, std::size_t n,
                            Units* out) const {
    const Link& view = network_.links()[link];
    const StoredRow row = stored_row(view, receiver, network_.size(view.giver));
    if (row.columns == nullptr) {
        const std::size_t stored = first < row.n ? std::min(n, row.n - first) : 0;
        if (stored > 0) quantise(quantum_, view.scalar, row.entry(first), row.step, stored, out);
        std::fill(out + stored, out + n, 0);
        return;
    }
    std::fill_n(out, n, 0);
    const std::uint32_t* const end = row.columns + row.n;
    const std::uint32_t* from = std::lower_bound(row.columns, end, first);
    for (; from != end && *from < first + n; ++from)
        quantise(quantum_, view.scalar, row.entry(static_cast<std::size_t>(from - row.columns)), row.step, 1,
                 out + (*from - first));
}

void CapacityIndex::row(std::size_t link, std::size_t receiver, Units* out) const {
    stretch(link, receiver, 0, network_.size(network_.links()[link].giver), out);
}

void CapacityIndex::column(std::size_t link, std::size_t giver, Units* out) const {
    const Link& view = network_.links()[link];
    const std::size_t n = network_.size(view.receiver);
    if (view.storage == Storage::strided)
        return quantise(quantum_, view.scalar, entry(view, 0, giver), view.row_stride, n, out);
    for (std::size_t j = 0; j < n; ++j) out[j] = at(link, j, giver);
}

std::size_t CapacityIndex::bytes() const {
    std::size_t total = bits_.size() * sizeof(Word);
    for (const LinkIndex& index : index_)
        total += index.straight.size() * sizeof(Units) + index.straight_bits.size() * sizeof(Word);
    return total;
}

}  // namespace attnflow
