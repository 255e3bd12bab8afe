from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

def eliminate(
    within: NDArray[np.float64], outside: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def prefix_values(
    sizes: Sequence[int],
    links: Sequence[tuple[int, int, NDArray[Any], int, Any]],
    players: Sequence[Sequence[int]],
    sink: Sequence[int],
    orders: NDArray[np.uint32],
    *,
    threads: int,
    check: bool,
    progress: Callable[[int, int], object] | None,
) -> dict[str, Any]: ...
def solve(
    sizes: Sequence[int],
    links: Sequence[tuple[int, int, NDArray[Any], int, Any]],
    sources: Sequence[Sequence[int]],
    sinks: Sequence[Sequence[int]],
    *,
    algorithm: str,
    threads: int,
    bottlenecks: bool,
    cuts: bool,
    flows: bool,
    check: bool,
    progress: Callable[[int, int], object] | None,
) -> dict[str, Any]: ...
