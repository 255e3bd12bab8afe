#include "harness.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <iostream>

namespace attnflow::testing {
namespace {

std::size_t failures = 0;
std::vector<std::string>& scopes() {
    static std::vector<std::string> all;
    return all;
}

}  // namespace

void fail(const char* file, int line, const std::string& message) {
    constexpr std::size_t enough = 20;
    if (++failures > enough) return;
    std::cerr << file << ':' << line << ": " << message;
    for (const std::string& scope : scopes()) std::cerr << "\n    in " << scope;
    std::cerr << std::endl;
}

Scope::Scope(std::string what) { scopes().push_back(std::move(what)); }
Scope::~Scope() { scopes().pop_back(); }

}  // namespace attnflow::testing

int main(int argc, char** argv) {
    using namespace attnflow::testing;
    const std::vector<std::string> wanted(argv + 1, argv + argc);
    std::size_t run = 0, failed = 0;
    for (const Test& test : tests()) {
        const std::string full = test.noun + "." + test.name;
        const auto names = [&](const std::string& want) { return want == test.noun || want == full; };
        if (!wanted.empty() && std::none_of(wanted.begin(), wanted.end(), names)) continue;
        ++run;
        std::cerr << full << std::flush;
        failures = 0;
        const auto start = std::chrono::steady_clock::now();
        try {
            test.body();
        } catch (const std::exception& error) {
            fail(full.c_str(), 0, std::string("unexpected exception: ") + error.what());
        } catch (...) {
            fail(full.c_str(), 0, "unexpected exception of an unknown type");
        }
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        std::cerr << (failures == 0 ? "  ok  " : "  FAILED  ") << seconds.count() << " s" << std::endl;
        failed += failures != 0;
    }
    std::cerr << run << " tests, " << failed << " failed" << std::endl;
    return run == 0 || failed != 0;  // a misspelt noun is a failure
}
