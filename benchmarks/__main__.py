"""Run all benchmarks (`make bench`), print the results, and write results.json, the chart and the
table in docs/about/performance.md.

python -m benchmarks
"""

import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks import (
    chart,
    cold,
    concurrency,
    cost,
    cutting,
    memory,
    row,
    sizes,
    turnaround,
    warm,
    word_times,
)

BENCHMARKS = (cold, warm, concurrency, memory, sizes, cutting, turnaround, cost, word_times)
RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parent.parent / "docs" / "about" / "performance.md"
CHART = PAGE.parent / "benchmarks.png"
# The table in PAGE is between these lines.
START, END = "<!-- results -->\n", "<!-- end of results -->\n"


def main() -> None:
    """Run all benchmarks one after another, and store their results."""
    started, rows = time.monotonic(), []
    print(row.HEAD, flush=True)
    for benchmark in BENCHMARKS:
        for result in benchmark.rows():
            print(row.line(result), flush=True)
            rows.append(result)
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    results = {**machine, "rows": [asdict(result) | {"holds": result.holds} for result in rows]}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    chart.draw(rows, CHART)
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(before + START + row.markdown(rows) + END + rest.partition(END)[2])
    missed = sum(not result.holds for result in rows)
    seconds = time.monotonic() - started
    print(f"{len(rows)} results in {seconds:.0f} s. {missed} miss their bound (marked with !).")
    print(f"Wrote {RESULTS} and {CHART}.")


if __name__ == "__main__":
    main()
