#include "instances.hpp"

#include <algorithm>
#include <cmath>

namespace attnflow::testing {

const char* name(Family family) {
    switch (family) {
        case Family::layered_dense: return "layered_dense";
        case Family::layered_causal: return "layered_causal";
        case Family::layered_sparse: return "layered_sparse";
        case Family::block_diagonal: return "block_diagonal";
        case Family::residual_stream: return "residual_stream";
        case Family::two_stacks: return "two_stacks";
        case Family::ragged_layers: return "ragged_layers";
        case Family::block_dag: return "block_dag";
        case Family::cyclic: return "cyclic";
        case Family::diagonals: return "diagonals";
        case Family::one_block_wide: return "one_block_wide";
    }
    return "?";
}

const char* name(Profile profile) {
    switch (profile) {
        case Profile::fractions: return "fractions";
        case Profile::peaked: return "peaked";
        case Profile::ties: return "ties";
        case Profile::tiny: return "tiny";
        case Profile::huge: return "huge";
        case Profile::wide: return "wide";
    }
    return "?";
}

const char* name(Scalar scalar) {
    switch (scalar) {
        case Scalar::float32: return "float32";
        case Scalar::float64: return "float64";
        case Scalar::int32: return "int32";
        case Scalar::int64: return "int64";
    }
    return "?";
}

namespace {

template <class T>
T unbounded_entry() {
    if constexpr (std::is_floating_point_v<T>) return std::numeric_limits<T>::infinity();
    if constexpr (sizeof(T) == 8) return static_cast<T>(unbounded);
    return std::numeric_limits<T>::max();  // int32 cannot say it
}

template <class T>
Store network_of(Family family, Profile profile, std::uint32_t width, Random& random) {
    const auto layout = [&] { return layouts[random.below(std::size(layouts))]; };
    const auto any = [&](std::uint32_t, std::uint32_t) { return draw<T>(profile, random); };
    const auto mostly_none = [&](std::uint32_t, std::uint32_t) {
        return random.chance(0.2) ? draw<T>(profile, random) : T{0};
    };
    const auto layered = [&](std::uint32_t depth, auto&& value) {
        Store store(std::vector<std::uint32_t>(depth + 1, width));
        for (std::uint32_t l = 0; l < depth; ++l) store.dense<T>(l, l + 1, value, layout());
        return store;
    };
    const auto stronger_straight = [&](std::uint32_t j, std::uint32_t k) {
        const T c = any(j, k);
        return j == k ? static_cast<T>(c + c) : static_cast<T>(c / static_cast<T>(2));
    };
    switch (family) {
        case Family::layered_dense: return layered(random.between(1, 4), any);
        case Family::layered_causal:
            return layered(random.between(1, 5),
                           [&](std::uint32_t j, std::uint32_t k) { return k <= j ? any(j, k) : T{0}; });
        case Family::layered_sparse: return layered(random.between(2, 6), mostly_none);
        case Family::block_diagonal: {
            const std::uint32_t block = std::max(2U, width / 3);
            return layered(random.between(2, 4), [&, block](std::uint32_t j, std::uint32_t k) {
                return j / block == k / block ? any(j, k) : T{0};
            });
        }
        case Family::residual_stream: return layered(random.between(2, 6), stronger_straight);
        case Family::two_stacks: {
            const std::uint32_t top = random.between(1, 5), n_upper = random.between(0, 3);
            const bool pool = n_upper == 0 || random.chance(0.3);
            std::vector<std::uint32_t> sizes(top + 1, width);
            sizes.insert(sizes.end(), 2 * n_upper + (n_upper > 0), random.between(1, width));
            if (pool) sizes.push_back(1);
            Store store(sizes);
            for (std::uint32_t l = 0; l < top; ++l)
                random.chance(0.2) ? store.diagonal<T>(l, l + 1, 0, [&](std::uint32_t k) { return any(k, k); })
                                   : store.dense<T>(l, l + 1, stronger_straight, layout());
            std::uint32_t block = top + 1;
            for (std::uint32_t i = 0; i < n_upper; ++i, block += 2) {
                store.dense<T>(block, block + 1, stronger_straight, layout());
                store.diagonal<T>(block + 1, block + 2, 0, [&](std::uint32_t k) { return any(k, k); });
                store.dense<T>(top, block + 2, any, layout());
            }
            if (pool) store.dense<T>(n_upper == 0 ? top : block, static_cast<std::uint32_t>(sizes.size()) - 1, any);
            if (random.chance(0.2)) store.dense<T>(static_cast<std::uint32_t>(sizes.size()) - 1, 0, any);
            return store;
        }
        case Family::ragged_layers: {
            std::vector<std::uint32_t> sizes;
            for (std::uint32_t b = random.between(2, 5); b > 0; --b) sizes.push_back(random.between(1, 2 * width));
            Store store(sizes);
            for (std::uint32_t b = 0; b + 1 < sizes.size(); ++b) store.dense<T>(b, b + 1, any, layout());
            return store;
        }
        case Family::block_dag:
        case Family::cyclic:
        case Family::diagonals: {
            const std::uint32_t n_blocks = random.between(2, 5);
            std::vector<std::uint32_t> sizes;
            for (std::uint32_t b = 0; b < n_blocks; ++b) sizes.push_back(random.between(1, width));
            Store store(sizes);
            for (std::uint32_t i = random.between(1, 2 * n_blocks); i > 0; --i) {
                std::uint32_t giver = random.below(n_blocks), receiver = random.below(n_blocks);
                if (family != Family::cyclic && giver > receiver) std::swap(giver, receiver);
                const bool to_itself = giver == receiver;
                const bool diagonal = family == Family::diagonals ? random.chance(0.6) : random.chance(0.15);
                if (diagonal) {
                    std::int64_t offset = static_cast<std::int64_t>(random.between(0, 4)) - 2;
                    if (to_itself && offset == 0 && random.chance(0.5)) offset = 1;
                    const double endless = random.chance(0.3) ? 0.3 : 0.0;
                    store.diagonal<T>(
                        giver, receiver, offset,
                        [&](std::uint32_t k) {
                            if (random.chance(endless)) return unbounded_entry<T>();
                            return random.chance(0.25) ? T{0} : any(0, k);
                        },
                        layout());
                } else if (!to_itself) {
                    random.chance(0.5) ? store.dense<T>(giver, receiver, any, layout())
                                       : store.dense<T>(giver, receiver, mostly_none, layout());
                }
            }
            return store;
        }
        case Family::one_block_wide: {
            const std::uint32_t n_blocks = random.between(8, 30);
            Store store(std::vector<std::uint32_t>(n_blocks, random.between(1, 4)));
            for (std::uint32_t b = 0; b + 1 < n_blocks; ++b) {
                store.dense<T>(b, b + 1, any, layout());
                if (random.chance(0.3)) store.dense<T>(b, random.between(b + 1, n_blocks - 1), mostly_none, layout());
                if (b > 0 && random.chance(0.3)) store.dense<T>(b, random.below(b), any, layout());
            }
            return store;
        }
    }
    return Store({1});
}

std::vector<Node> some_of(std::vector<Node>& pool, std::uint32_t most, Random& random) {
    std::vector<Node> nodes;
    for (std::uint32_t i = random.between(1, most); i > 0 && pool.size() > 1; --i) {
        const std::uint32_t at = random.below(static_cast<std::uint32_t>(pool.size()));
        nodes.push_back(pool[at]);
        pool.erase(pool.begin() + at);
    }
    return nodes;
}

}  // namespace

Store random_network(Family family, Profile profile, Scalar scalar, std::uint32_t width, Random& random) {
    Store store({1});
    with_type(scalar, [&](auto zero) { store = network_of<decltype(zero)>(family, profile, width, random); });
    return store;
}

Store Store::thinned(double p, Random& random) const {
    Store thin(sizes_);
    for (const Link& link : links_)
        with_type(link.scalar, [&](auto zero) {
            using T = decltype(zero);
            const auto at = [&](std::size_t j, std::size_t k) {
                const std::byte* where = entry(link, j, k);
                return where != nullptr ? load<T>(where) : T{0};
            };
            if (link.diagonal()) {
                thin.diagonal<T>(link.giver, link.receiver, link.offset, [&](std::uint32_t k) { return at(0, k); });
                return;
            }
            std::vector<double> in(sizes_[link.receiver], 0), out(sizes_[link.giver], 0);
            bool causal = true;
            thin.dense<T>(
                link.giver, link.receiver,
                [&](std::uint32_t j, std::uint32_t k) {
                    const T c = at(j, k);
                    if (j == k || c >= unbounded_entry<T>() || !random.chance(p)) return c;
                    // Sums round by one part in 2^53 an addend.
                    in[j] = (in[j] + static_cast<double>(c)) * (1 + 0x1p-50);
                    out[k] = (out[k] + static_cast<double>(c)) * (1 + 0x1p-50);
                    causal = causal && (k <= j || c == T{0});
                    return T{0};
                },
                Layout::sparse);
            thin.sums_.push_back(std::move(in));
            thin.links_.back().dropped_in = thin.sums_.back().data();
            thin.sums_.push_back(std::move(out));
            thin.links_.back().dropped_out = thin.sums_.back().data();
            thin.links_.back().dropped_causal = causal;
        });
    return thin;
}

Query random_query(const Network& network, bool anywhere, Random& random) {
    std::vector<Node> from, to;
    const std::size_t last = network.n_blocks() - 1;
    for (Node node = 0; node < network.n_nodes(); ++node) {
        if (anywhere ? random.chance(0.5) : network.block_of(node) == 0)
            from.push_back(node);
        else if (anywhere || network.block_of(node) == last)
            to.push_back(node);
    }
    if (from.empty()) from.push_back(to.back()), to.pop_back();
    if (to.empty()) to.push_back(from.back()), from.pop_back();
    Query query;
    const std::vector<Node> all_from = from, all_to = to;
    for (std::uint32_t i = random.between(1, 3); i > 0; --i) {
        from = all_from;
        to = all_to;
        query.sources.push_back({all_from[random.below(static_cast<std::uint32_t>(all_from.size()))]});
        query.sinks.push_back({all_to[random.below(static_cast<std::uint32_t>(all_to.size()))]});
    }
    // So many that they share flows.
    if (all_from.size() <= 16 && random.chance(0.3)) {
        query.sources.clear();
        for (const Node node : all_from) query.sources.push_back({node});
    }
    if (std::vector<Node> set = some_of(from, 4, random); !set.empty()) query.sources.push_back(std::move(set));
    if (std::vector<Node> set = some_of(to, 4, random); !set.empty()) query.sinks.push_back(std::move(set));
    return query;
}

}  // namespace attnflow::testing
