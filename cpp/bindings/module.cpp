// The Python module attnflow._core. Registers; everything else is in one bind_<noun>.cpp a noun.
#include <pybind11/pybind11.h>

#include "bindings.hpp"

PYBIND11_MODULE(_core, module) {
    module.doc() = "attnflow's compiled kernel. Use attnflow.maxflow: it checks and converts what this takes as given.";
    module.attr("__version__") = ATTNFLOW_VERSION;
    bind_errors(module);
    bind_solve(module);
    bind_game(module);
}
