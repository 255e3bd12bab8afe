// What module.cpp registers.
#pragma once

#include <pybind11/pybind11.h>

void bind_errors(pybind11::module_& module);
void bind_game(pybind11::module_& module);
void bind_solve(pybind11::module_& module);
