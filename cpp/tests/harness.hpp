// A test harness that fits on a page.
//
//     TEST(capacity, thresholds_are_nested) { CHECK(a <= b); CHECK_EQUAL(a, b); CHECK_THROWS(InvalidArgument, f()); }
//
// registers a test of the noun "capacity". The executable runs the nouns named on its command line, or all. A failed
// check is recorded and the test goes on; an exception ends the test. Only the thread that runs the tests may check.
#pragma once

#include <functional>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

namespace attnflow::testing {

struct Test {
    std::string noun, name;
    std::function<void()> body;
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

struct Registration {
    Registration(const char* noun, const char* name, std::function<void()> body) {
        tests().push_back({noun, name, std::move(body)});
    }
};

/// Records a failure of the running test.
void fail(const char* file, int line, const std::string& message);

/// While it lives, failures name `what`: the seed, the shape, the algorithm at hand.
class Scope {
   public:
    explicit Scope(std::string what);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
};

template <class T>
std::string shown(const T& value) {
    std::ostringstream out;
    if constexpr (std::is_enum_v<T>)
        out << static_cast<long long>(value);
    else if constexpr (requires { value.begin(); } && !std::is_convertible_v<T, std::string>) {
        out << '[';
        for (const auto& element : value) out << ' ' << element;
        out << " ]";
    } else {
        out.precision(17);
        out << value;
    }
    return out.str();
}

template <class A, class B>
void check_equal(const A& got, const B& expected, const char* what, const char* file, int line) {
    if (!(got == expected)) fail(file, line, std::string(what) + ": " + shown(got) + " != " + shown(expected));
}

/// Runs `body`, which should throw an Exception; returns its message, or "" after recording a failure.
template <class Exception, class Body>
std::string check_throws(Body&& body, const char* what, const char* file, int line) {
    try {
        body();
    } catch (const Exception& error) {
        return error.what();
    } catch (const std::exception& error) {
        fail(file, line, std::string(what) + " throws something else: " + error.what());
        return {};
    }
    fail(file, line, std::string(what) + " does not throw");
    return {};
}

}  // namespace attnflow::testing

#define TEST(noun, name)                                                                                             \
    static void test_##noun##_##name();                                                                              \
    static const ::attnflow::testing::Registration registration_##noun##_##name(#noun, #name, test_##noun##_##name); \
    static void test_##noun##_##name()

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) ::attnflow::testing::fail(__FILE__, __LINE__, #condition); \
    } while (false)

#define CHECK_EQUAL(got, expected) \
    ::attnflow::testing::check_equal(got, expected, #got " == " #expected, __FILE__, __LINE__)

/// Fails once for every sentence of a list of complaints.
#define CHECK_NONE(complaints) \
    for (const std::string& complaint : complaints) ::attnflow::testing::fail(__FILE__, __LINE__, complaint)

#define CHECK_THROWS(Exception, ...) \
    ::attnflow::testing::check_throws<Exception>([&] { (void)(__VA_ARGS__); }, #__VA_ARGS__, __FILE__, __LINE__)
