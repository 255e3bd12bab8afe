"""README's chart again, from the newest report that `attnflow bench` wrote: `python benchmarks/plot_peers.py`."""

from __future__ import annotations

import json
import sys

from attnflow import bench
from environment import RESULTS, ROOT

CHART = ROOT / "docs" / "images" / "peers.svg"


def main() -> int:
    """Draw the chart."""
    report = max(RESULTS.glob("peers-*.json"), default=None)
    if report is None:
        raise SystemExit(f"no peers-*.json in {RESULTS}: run `make bench` first")
    bench.draw(json.loads(report.read_text()), CHART)
    print(f"{CHART} drawn from {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
