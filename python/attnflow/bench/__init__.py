"""attnflow beside the peers - OR-Tools, SciPy, igraph, PyMaxflow, networkx - on the machine at hand.

This is what ``attnflow bench`` runs, and what README's figures come from: :func:`select` names the networks,
:func:`load` builds one, :func:`compare` has everybody solve it and takes the time, :func:`make_report`, :func:`table`
and :func:`draw` show it. What is counted and what is not stands at the head of ``measurement.py``. The libraries are
loaded by ``peers.find()``, matplotlib by :func:`draw`, and the trained models of some cases when their attention is not
in the cache; importing this module loads none of them.

Examples
--------
>>> from attnflow import bench
>>> installed, missing = bench.peers.find()
>>> (case,) = bench.select("one layer n=8")
>>> result = bench.compare(bench.load(case), installed, repeats=1, seconds=0.0)
>>> print(bench.table(bench.make_report([result], {"repeats": 1})))
| case          | edges | ...
"""

from __future__ import annotations

from ..maxflow import Link
from . import peers
from .cases import CASES, Case, Instance, instance, load, select
from .chart import draw
from .environment import describe, record
from .measurement import compare
from .report import make as make_report
from .report import table
from .trained import attention

__all__ = [
    "CASES",
    "Case",
    "Instance",
    "Link",
    "attention",
    "compare",
    "describe",
    "draw",
    "instance",
    "load",
    "make_report",
    "peers",
    "record",
    "select",
    "table",
]
