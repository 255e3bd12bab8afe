// Network: numbering, and the rules it enforces.
#include "attnflow/errors.hpp"
#include "harness.hpp"
#include "instances.hpp"

namespace attnflow::testing {
namespace {

const auto one = [](std::uint32_t, std::uint32_t) { return 1.0; };
const auto one_each = [](std::uint32_t) { return 1.0; };

TEST(network, nodes_are_numbered_block_by_block) {
    const Network network({3, 70, 1, 64}, {});
    CHECK_EQUAL(network.n_blocks(), std::size_t{4});
    CHECK_EQUAL(network.n_nodes(), std::size_t{138});
    const std::vector<Node> first = {0, 3, 73, 74};
    Node node = 0;
    for (std::uint32_t block = 0; block < 4; ++block) {
        CHECK_EQUAL(network.first_node(block), first[block]);
        for (std::uint32_t position = 0; position < network.size(block); ++position, ++node) {
            CHECK_EQUAL(network.block_of(node), block);
            CHECK_EQUAL(network.position_of(node), position);
        }
    }
    CHECK_EQUAL(node, Node{138});
}

TEST(network, sets_of_nodes_start_each_block_at_a_word) {
    const Network network({3, 70, 1, 64, 65}, {});
    const std::vector<std::size_t> words = {1, 2, 1, 1, 2};
    std::size_t word = 0;
    for (std::size_t block = 0; block < words.size(); ++block) {
        CHECK_EQUAL(network.words(block), words[block]);
        CHECK_EQUAL(network.first_word(block), word);
        word += words[block];
    }
    CHECK_EQUAL(network.n_words(), word);
}

TEST(network, links_are_listed_by_block_and_rows_by_link) {
    Store store({2, 5, 3});
    store.dense<float>(0, 1, one).dense<float>(1, 2, one).diagonal<float>(0, 2, 1, one_each).dense<float>(2, 0, one);
    const Network network = store.network();
    CHECK_EQUAL(network.links_into(1), std::vector<std::uint32_t>{0});
    CHECK_EQUAL(network.links_into(2), (std::vector<std::uint32_t>{1, 2}));
    CHECK_EQUAL(network.links_out_of(0), (std::vector<std::uint32_t>{0, 2}));
    CHECK_EQUAL(network.links_out_of(2), std::vector<std::uint32_t>{3});
    CHECK_EQUAL(network.first_row(0), 0U);
    CHECK_EQUAL(network.first_row(1), 5U);
    CHECK_EQUAL(network.first_row(2), 8U);
    CHECK_EQUAL(network.first_row(3), 11U);
    CHECK_EQUAL(network.n_rows(), std::size_t{13});
    CHECK_EQUAL(network.n_edges(), std::uint64_t{10 + 15 + 2 + 6});
}

TEST(network, refuses_what_names_no_block) {
    for (const auto& [giver, receiver] : {std::pair{2U, 0U}, std::pair{0U, 2U}, std::pair{7U, 9U}}) {
        Link link;
        link.giver = giver;
        link.receiver = receiver;
        const std::string message = CHECK_THROWS(InvalidArgument, Network({1, 1}, {link}));
        CHECK(message.find("link 0") != std::string::npos);
    }
}

TEST(network, refuses_an_empty_block) {
    const std::string message = CHECK_THROWS(InvalidArgument, Network({4, 0, 4}, {}));
    CHECK(message.find("block 1") != std::string::npos);
}

TEST(network, only_a_diagonal_joins_a_block_to_itself) {
    CHECK_THROWS(InvalidArgument, Store({3}).dense<float>(0, 0, one).network());
    CHECK_EQUAL(Store({3}).diagonal<float>(0, 0, 1, one_each).network().n_edges(), std::uint64_t{3});
}

TEST(network, a_triangle_is_square) {
    Link link;
    link.giver = 0;
    link.receiver = 1;
    link.storage = Storage::triangle;
    CHECK(CHECK_THROWS(InvalidArgument, Network({3, 4}, {link})).find("link 0 is a triangle") != std::string::npos);
    CHECK_EQUAL(Network({4, 4}, {link}).n_edges(), std::uint64_t{10});
}

TEST(network, refuses_sparse_rows_that_lead_astray) {
    const auto refused = [](std::vector<std::int64_t> starts, std::vector<std::uint32_t> columns) {
        Link link;
        link.giver = 0;
        link.receiver = 1;
        link.storage = Storage::sparse;
        link.starts = starts.data();
        link.columns = columns.data();
        return CHECK_THROWS(InvalidArgument, Network({3, 2}, {link}));
    };
    const auto holds = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
    CHECK(holds(refused({1, 2, 3}, {0, 1, 2}), "does not start at entry 0"));
    CHECK(holds(refused({0, 2, 1}, {0, 1}), "row 1 ends before it starts"));
    CHECK(holds(refused({0, 1, 2}, {0, 3}), "columns of row 1"));
    CHECK(holds(refused({0, 2, 2}, {1, 1}), "columns of row 0"));
    CHECK(holds(refused({0, 2, 2}, {2, 0}), "columns of row 0"));
}

TEST(network, refuses_more_nodes_than_a_number_holds) { CHECK_THROWS(InvalidArgument, Network({0xFFFFFFFFU}, {})); }

}  // namespace
}  // namespace attnflow::testing
