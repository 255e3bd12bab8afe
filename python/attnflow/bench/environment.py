"""What a figure was measured on and with: written beside every result."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["describe", "record"]

_HERE = Path(__file__).resolve().parent
_CPUINFO = Path("/proc/cpuinfo")  # of Linux


def record(distributions: Iterable[str] = ()) -> dict[str, Any]:
    """Date, commit, machine, and the versions of Python, attnflow, numpy and `distributions`.

    Returns
    -------
    dict
        ``commit`` is None, and ``machine`` names no compiler, unless attnflow runs from a clone of its repository: a
        wheel may have been built anywhere.

    Examples
    --------
    >>> from attnflow import bench
    >>> sorted(bench.record()["versions"])
    ['attnflow', 'numpy', 'python']
    """
    commit = _commit()
    machine: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    names = getattr(os, "sysconf_names", {})
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= names.keys():
        machine["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    compiler = _output(os.environ.get("CXX", "c++"), "--version") if commit else None
    if compiler:
        machine["compiler"] = compiler.partition("\n")[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": machine,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("attnflow", "numpy", *distributions)},
        },
    }


def describe(record: dict[str, Any]) -> str:
    """One line for people: machine, version, commit and date of a :func:`record`.

    Examples
    --------
    >>> from attnflow import bench
    >>> machine = {"processor": "Ada 1", "cores": 2, "system": "Linux x86_64"}
    >>> made = {"date": "2026-01-31T12:00:00", "commit": None, "machine": machine, "versions": {"attnflow": "0.1.0"}}
    >>> bench.describe(made)
    'Ada 1, 2 cores, Linux x86_64; attnflow 0.1.0; 2026-01-31'
    """
    machine = record["machine"]
    memory = f", {machine['memory_gib']} GiB" if "memory_gib" in machine else ""
    commit = f" ({record['commit']})" if record["commit"] else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores{memory}, {machine['system']}; "
        f"attnflow {record['versions']['attnflow']}{commit}; {record['date'][:10]}"
    )


def _commit() -> str | None:
    """The commit of the clone that this file belongs to; an installed wheel may lie within somebody else's clone."""
    if _output("git", "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _output("git", "describe", "--always", "--dirty", "--abbrev=12")


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=_HERE).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    """What the system calls its processor; where it has no name for it, that is said."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    name = fields.get("model name") or _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    kinds = ("cpu family", "model", "CPU implementer", "CPU part")
    kind = ", ".join(f"{name} {fields[name]}" for name in kinds if name in fields)
    return (name or f"a {platform.machine()} processor that the system does not name") + (f" ({kind})" if kind else "")
