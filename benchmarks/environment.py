"""Where the scripts of this folder read and write; imported before anything that looks for a cache."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["RESULTS", "ROOT"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

# The repository's own cache, where the demo and the tests have theirs.
os.environ.setdefault("ATTNFLOW_CACHE", str(ROOT / ".cache"))
