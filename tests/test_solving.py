"""The kernel as a long-running call: threads, progress, interruption, memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from oracles import FAMILIES
from test_maxflow import ALGORITHMS, every_algorithm, solve

from attnflow import instances, maxflow
from attnflow.errors import InvalidArgumentError


@every_algorithm
@pytest.mark.parametrize("name", ["peaked", "integers", "blocks 7", "genrmf"])
def test_threads_do_not_change_anything(name, algorithm):
    case = FAMILIES[name]
    options = {"algorithm": algorithm, "bottlenecks": True, "cuts": True}
    one, two, many = (solve(case, threads=threads, **options) for threads in (1, 2, 5))
    for other in (two, many, solve(case, **options)):
        for field in ("values", "lower", "upper", "bottlenecks"):
            np.testing.assert_array_equal(getattr(other, field), getattr(one, field))
        for row, other_row in zip(one.cuts, other.cuts, strict=True):
            for cut, other_cut in zip(row, other_row, strict=True):
                assert cut.capacity == other_cut.capacity
                for side, other_side in zip(cut.source_side, other_cut.source_side, strict=True):
                    np.testing.assert_array_equal(side, other_side)


def test_results_cannot_be_written():
    flows = maxflow.layered(
        instances.softmax(2, 3, seed=0), sources=[0], bottlenecks=True, cuts=True, flows=True, check=True
    )
    edge = flows.flows
    for array in (flows.values, flows.lower, flows.upper, flows.bottlenecks, edge.link, edge.giver, edge.flow):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(AttributeError):
        flows.values = None
    again = maxflow.layered(instances.softmax(2, 3, seed=0), sources=[0])
    assert again.bottlenecks is again.cuts is again.flows is None


@pytest.fixture(scope="module")
def slow():
    """Many seconds of work, for whoever lets it run to its end."""
    return instances.peaked(12, 400, seed=0, residual=0.0)


@pytest.mark.parametrize("threads", [1, 2])
@every_algorithm
def test_progress_is_reported_and_may_stop_the_solve(slow, threads, algorithm):
    calls = []

    class Enough(Exception):
        pass

    def progress(done, total):
        calls.append((time.perf_counter(), done, total))
        if len(calls) == 4:
            raise Enough

    start = time.perf_counter()
    with pytest.raises(Enough):
        maxflow.layered(slow, sinks=range(400), threads=threads, algorithm=algorithm, progress=progress)
    end = time.perf_counter()
    times, done, total = zip(*calls, strict=True)
    assert set(total) == {400 * 400}
    assert list(done) == sorted(done)
    assert done[-1] < total[-1]
    assert end - times[-1] < 1.0
    assert max(np.diff([start, *times])) < 1.0


def test_progress_of_a_short_solve_ends_with_everything_done(peaked):
    calls = []
    maxflow.layered(peaked, sinks=range(7), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (49, 49)
    assert calls == sorted(calls)


def test_progress_must_be_callable(peaked):
    with pytest.raises(InvalidArgumentError, match="progress"):
        maxflow.layered(peaked, progress=3)


LONG = {
    "a flow of many paths": "maxflow.layered(instances.peaked(12, 400, seed=0, residual=0.0), sinks=range(400)",
    "a chain of many layers": "maxflow.layered([np.ones((1, 1), np.float32)] * 20_000",
    "a chain within a block": (
        "maxflow.blocks([200_000], [maxflow.Link(0, 0, np.full(200_000, 2.0), 1)], "
        "sources=[(0, 0)], sinks=[(0, 199_999)]"
    ),
}


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@every_algorithm
@pytest.mark.parametrize("what", LONG)
def test_control_c_stops_within_a_second(what, algorithm):
    code = (
        "import time\n"
        "import numpy as np\n"
        "from attnflow import instances, maxflow\n"
        "print('solving', flush=True)\n"
        "try:\n"
        f"    {LONG[what]}, algorithm={algorithm!r})\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(30, process.kill)
        watchdog.start()
        assert process.stdout.readline() == "solving\n"
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        start = time.perf_counter()
        assert process.stdout.readline() == "stopped\n"
        assert time.perf_counter() - start < 1.0
        assert process.wait(10) == 0
        watchdog.cancel()


def test_other_threads_run_meanwhile(slow):
    """The GIL is released."""
    ticks = []
    stop = threading.Event()

    def count():
        while not stop.wait(0.01):
            ticks.append(time.perf_counter())

    other = threading.Thread(target=count)
    other.start()
    try:
        maxflow.layered(slow, sources=range(200), threads=1)
    finally:
        stop.set()
        other.join()
    assert len(ticks) >= 3


def test_two_callers_at_once(peaked, full):
    results = [None] * 4

    def work(index):
        results[index] = [maxflow.layered(peaked, sinks=range(7), threads=1).values for _ in range(20)]

    callers = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for values in results:
        for value in values:
            np.testing.assert_array_equal(value, full)


def test_answers_do_not_depend_on_what_was_solved_before(peaked, full):
    """The per-source overlay is undone: each source alone gives what all together gave."""
    for algorithm in ALGORITHMS:
        for source in range(7):
            alone = maxflow.layered(peaked, sources=[source], sinks=range(7), algorithm=algorithm).values
            np.testing.assert_array_equal(alone[:, 0], full[:, source])


def test_memory_does_not_grow_with_the_sources(slow):
    few, many = (maxflow.layered(slow, sources=[*range(50)] * times, threads=1).stats for times in (3, 9))
    # The largest of the solves counts, and which of them goes which way depends on how many went before.
    assert many["workspace_bytes"] <= 1.1 * few["workspace_bytes"]
    assert many["index_bytes"] == few["index_bytes"]
    # Nothing is copied, so this is all there is, on an instance whose flows spread over a seventh of the edges: the
    # flow that sources share and one of their own. Real attention takes a quarter: benchmarks/memory.py.
    assert few["index_bytes"] + few["workspace_bytes"] <= 1.6 * slow.nbytes
