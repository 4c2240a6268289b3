"""Measure the zipped sizes of the API bundle and the tutorial app's bundle, including bytecode.

python -m benchmarks.sizes
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cold import naive_bundle
from benchmarks.row import Row, table
from infra.bundle import API, ROOT, Target, zipped_sizes


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        naive = naive_bundle(Path(folder) / "naive")
        steno = API.build(ROOT / ".bundles", Target.here())
        sizes = [zipped_sizes(bundle).total() / 1e6 for bundle in (steno, naive)]
    # The bundle includes the complete OpenAI SDK (5.2 MB), because there is no reliable way to
    # determine which of its modules are unused.
    yield Row("API bundle, zipped", "MB", sizes[0], 16, 12, sizes[1])


if __name__ == "__main__":
    print(table(rows()))
