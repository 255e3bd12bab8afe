"""One call of the kernel in a process of its own: how long it takes, and how much memory.

There the high-water mark of resident memory is set back when the float32 array of capacities stands complete, all
sources are solved, and the mark is read: the difference is everything the solve took, copies of capacities, the state
of the source at hand and the results. (Linux only: the mark is ``VmHWM``, set back by writing 5 to
``/proc/self/clear_refs``.) The time is the best of the calls that fit into a second, this first one included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attnflow.packaged_models import cache_folder

__all__ = ["Cost", "call"]

MEASURE = r"""
import sys
from pathlib import Path
from time import perf_counter
import numpy as np
import attnflow

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

def seconds():
    started = perf_counter()
    attnflow.maxflow.layered(capacities, sinks=[int(sys.argv[2])], threads=int(sys.argv[3]))
    return perf_counter() - started

tiny = np.full((2, 2, 2), 0.5, dtype=np.float32)
attnflow.maxflow.layered(tiny)  # loads what a first call loads
capacities = np.load(sys.argv[1])
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
best = seconds()
taken = status("VmHWM") - before
end = perf_counter() + 1 - best
while perf_counter() < end:
    best = min(best, seconds())
print(best, taken)
"""


class Cost(NamedTuple):
    """Of one call: all sources, one sink."""

    seconds: float
    n_bytes: int


def call(capacities: NDArray[np.float32], sink: int, *, threads: int = 1, limit: float | None = None) -> Cost:
    """What solving all sources of ``(layers, n, n)`` capacities costs beside the array itself.

    Raises
    ------
    TimeoutError
        It took longer than `limit` seconds, and was ended.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        file = Path(folder, "capacities.npy")
        np.save(file, capacities)
        command = [sys.executable, "-c", MEASURE, str(file), str(sink), str(threads)]
        try:
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=limit).stdout
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"not done after {limit:g} seconds") from None
    seconds, taken = output.split()
    return Cost(float(seconds), int(taken))
