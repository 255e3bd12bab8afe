"""README's chart again, from the newest report that `attnflow bench` wrote: `python benchmarks/plot_peers.py`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from attnflow import bench
from environment import RESULTS, ROOT

CHART = ROOT / "docs" / "images" / "peers.svg"


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chart", type=Path, default=CHART, help="default: docs/images/peers.svg")
    chart = parser.parse_args(arguments).chart
    report = max(RESULTS.glob("peers-*.json"), default=None)
    if report is None:
        raise SystemExit(f"no peers-*.json in {RESULTS}: run `make bench` first")
    bench.draw(json.loads(report.read_text()), chart)
    print(f"{chart} drawn from {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
