// Kernel against twin, on networks that nobody thought of
//
// Bytes become a network and a query; both algorithms solve it with their certificates checked, and every part of the
// answer is compared with the slow reference (see agreement.hpp). Any difference aborts.
//
// Encoding. One byte a decision, each read modulo its number of choices; when the bytes run out, zeros follow, so every
// byte string is a network, and prefixes of interesting strings are interesting. A link's entries are either read one
// by one from a palette of awkward capacities, or drawn from a generator that two of the bytes seed: otherwise large
// networks would need strings longer than a fuzzer tries.
//
// With ATTNFLOW_LIBFUZZER this is a libFuzzer target. Without, it is a program
//
//     attnflow_fuzz [runs] [first seed]
//
// that runs seeded random byte strings, says which seed failed, and gives up on one that takes half a minute.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "agreement.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

class Bytes {
   public:
    Bytes(const std::uint8_t* data, std::size_t size) : data_(data), end_(data + size) {}
    std::uint32_t next() { return data_ == end_ ? 0 : *data_++; }
    std::uint32_t below(std::uint32_t n) { return next() % n; }

   private:
    const std::uint8_t *data_, *end_;
};

template <class T>
T palette(std::uint32_t choice) {
    using Limits = std::numeric_limits<T>;
    if constexpr (std::is_floating_point_v<T>) {
        switch (choice % 24) {
            case 0:
            case 1:
            case 2:
            case 3:
            case 4:
            case 5: return T{0};
            case 6:
            case 7: return T{1};
            case 8: return T{2};
            case 9: return T{3};
            case 10: return T{0.5};
            case 11: return T(0.1);
            case 12: return T(1) / T(3);
            case 13: return T(0x1p-20);
            case 14: return T(0x1.8p-40);
            case 15: return T(0x1p-70);
            case 16: return T(0x1.fffffep20);
            case 17: return T(0x1p40);
            case 18: return Limits::denorm_min();
            case 19: return Limits::min();
            case 20: return Limits::max() / T(1 << 20);
            case 21: return -T{0};
            default: return Limits::infinity();
        }
    } else {
        switch (choice % 24) {
            case 12: return T{100};
            case 13: return T{1} << 20;
            case 14: return Limits::max() / 1024;
            case 15: return sizeof(T) == 8 ? static_cast<T>(Units{1} << 50) + 1 : T{77};
            case 16: return Limits::max();  // int64: unbounded
            default: return static_cast<T>(choice % 24 < 6 ? 0 : choice % 6);
        }
    }
}

template <class T>
void add_link(Bytes& bytes, Store& store, std::uint32_t giver, std::uint32_t receiver) {
    const std::uint32_t kind = bytes.next();
    const Layout layout = layouts[bytes.below(std::size(layouts))];
    const bool diagonal = giver == receiver || kind % 4 == 0;
    const std::uint32_t source = kind / 4 % 4;
    Random random(0);
    if (source == 0) random = Random(bytes.next() * 256 + bytes.next());
    const auto profile = profiles[kind / 16 % std::size(profiles)];
    const auto value = [&](auto...) {
        if (source != 0) return palette<T>(bytes.next());
        return random.chance(0.5) ? draw<T>(profile, random) : T{0};
    };
    if (diagonal)
        store.diagonal<T>(giver, receiver, static_cast<std::int64_t>(bytes.below(7)) - 3, value, layout);
    else
        store.dense<T>(giver, receiver, value, layout);
}

std::vector<std::string> run(Bytes bytes) {
    std::vector<std::uint32_t> sizes;
    const bool wide = bytes.below(16) == 1;
    const bool chain = bytes.below(2) == 1;  // layers of one size, as attention has them, and perhaps more links
    for (std::uint32_t b = 2 + bytes.below(4); b > 0; --b)
        sizes.push_back(chain && !sizes.empty() ? sizes[0] : 1 + bytes.below(wide ? 70 : 5));
    Store store(sizes);
    const auto n_blocks = static_cast<std::uint32_t>(sizes.size());
    const std::uint32_t types = bytes.next();
    const auto add = [&](std::uint32_t giver, std::uint32_t receiver) {
        switch (types % 8) {
            case 0:
            case 1:
            case 2: return add_link<float>(bytes, store, giver, receiver);
            case 3: return add_link<double>(bytes, store, giver, receiver);
            case 4: return add_link<std::int32_t>(bytes, store, giver, receiver);
            case 5: return add_link<std::int64_t>(bytes, store, giver, receiver);
            case 6:
                return bytes.below(2) ? add_link<float>(bytes, store, giver, receiver)
                                      : add_link<double>(bytes, store, giver, receiver);
            default:
                return bytes.below(2) ? add_link<std::int32_t>(bytes, store, giver, receiver)
                                      : add_link<std::int64_t>(bytes, store, giver, receiver);
        }
    };
    if (chain)
        for (std::uint32_t b = 0; b + 1 < n_blocks; ++b) add(b, b + 1);
    for (std::uint32_t e = chain ? bytes.below(3) : 1 + bytes.below(8); e > 0; --e) {
        const std::uint32_t giver = bytes.below(n_blocks), receiver = bytes.below(n_blocks);
        add(giver, receiver);
    }
    const Network network = store.network();

    // Even numbers pick sources from below a pivot node, sinks from it on; odd ones the other way round.
    const auto n = static_cast<std::uint32_t>(network.n_nodes());
    const std::uint32_t pivot = 1 + bytes.below(n - 1);
    const bool forwards = bytes.below(4) != 3;
    const auto sets = [&](bool low) {
        std::vector<std::vector<Node>> all;
        for (std::uint32_t i = 1 + bytes.below(2); i > 0; --i) {
            std::vector<Node> set;
            for (std::uint32_t size = 1 + bytes.below(3); size > 0; --size) {
                const Node node = low ? bytes.below(pivot) : pivot + bytes.below(n - pivot);
                if (std::find(set.begin(), set.end(), node) == set.end()) set.push_back(node);
            }
            all.push_back(std::move(set));
        }
        return all;
    };
    Query query;
    query.sources = sets(forwards);
    query.sinks = sets(!forwards);
    return disagreements(network, query, 1 + bytes.below(8) / 7);
}

}  // namespace
}  // namespace attnflow::testing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::vector<std::string> complaints = attnflow::testing::run(attnflow::testing::Bytes(data, size));
    for (const std::string& complaint : complaints) std::cerr << complaint << std::endl;
    if (!complaints.empty()) std::abort();
    return 0;
}

#ifndef ATTNFLOW_LIBFUZZER
int main(int argc, char** argv) {
    using attnflow::testing::Bytes;
    const std::uint64_t runs = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1000;
    const std::uint64_t first = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
    std::atomic<std::uint64_t> seed{first};
    const std::jthread watch([&](const std::stop_token& stop) {  // a solve that never ends has to be named, too
        for (std::uint64_t last = first, seconds = 0; !stop.stop_requested();) {
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
            seconds = seed == last ? seconds + 1 : 0;
            last = seed;
            if (seconds < 300) continue;
            std::cerr << "seed " << last << " has not ended after half a minute" << std::endl;
            std::_Exit(1);
        }
    });
    std::uint64_t failed = 0;
    for (; seed < first + runs; ++seed) {
        attnflow::testing::Random random(seed);
        std::vector<std::uint8_t> bytes(random.between(8, 400));
        for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random.next());
        const std::vector<std::string> complaints = attnflow::testing::run(Bytes(bytes.data(), bytes.size()));
        if (complaints.empty()) continue;
        ++failed;
        std::cerr << "seed " << seed << '\n';
        for (const std::string& complaint : complaints) std::cerr << "    " << complaint << std::endl;
        if (failed == 10) break;
    }
    std::cerr << seed - first << " runs, " << failed << " failed" << std::endl;
    return failed != 0;
}
#endif
