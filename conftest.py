"""Doctests are collected from the package; those of rooms whose packages are missing are left out."""

import os
from importlib.util import find_spec
from pathlib import Path

# Doctests and tests share the cache of the demo and the benchmarks.
os.environ.setdefault("ATTNFLOW_CACHE", str(Path(__file__).parent / ".cache"))

collect_ignore_glob = [
    "tests/*conftest.py",  # read as plugins; as modules with doctests their common name is in the way
    *(
        pattern
        for package, patterns in {
            "torch": ["python/attnflow/capture/*", "python/attnflow/explain.py"],
            "rich": ["python/attnflow/views/terminal.py"],
            "jinja2": ["python/attnflow/views/html.py"],
            "igraph": ["python/attnflow/bench/peers/igraph.py"],
            "maxflow": ["python/attnflow/bench/peers/pymaxflow.py"],
            "networkx": ["python/attnflow/bench/peers/networkx.py"],
            "ortools": ["python/attnflow/bench/peers/ortools.py"],
            "scipy": ["python/attnflow/bench/peers/scipy.py"],
        }.items()
        if find_spec(package) is None
        for pattern in patterns
    ),
]
