"""All that `make bench` measures: prints the table, and writes results.json and the README's chart.

python -m benchmarks
"""

import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks import chart, cold, concurrency, cost, cutting, memory, row, sizes, turnaround, warm

RESULTS = Path(__file__).parent / "results.json"
CHART = Path(__file__).parent.parent / "docs" / "benchmarks.png"


def main() -> None:
    began, rows = time.monotonic(), []
    print(row.HEAD, flush=True)
    for part in (cold, warm, concurrency, memory, sizes, cutting, turnaround, cost):
        for measured in part.rows():
            print(row.line(measured), flush=True)
            rows.append(measured)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    told = {**machine, "rows": [asdict(measured) | {"holds": measured.holds} for measured in rows]}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    chart.draw(rows, CHART)
    missed = sum(not measured.holds for measured in rows)
    print(
        f"{len(rows)} figures, {missed} beyond their bound (!), in {time.monotonic() - began:.0f} s."
    )
    print(f"Written: {RESULTS}, {CHART}")


if __name__ == "__main__":
    main()
