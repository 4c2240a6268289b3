"""How large the API's bundle is, beside the one that pip alone makes for a tutorial's app: zipped, with byte code.

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
        naive, steno = (
            naive_bundle(Path(folder) / "naive"),
            API.build(ROOT / ".bundles", Target.here()),
        )
        sizes = [zipped_sizes(bundle).total() / 1e6 for bundle in (steno, naive)]
    # The whole SDK is in it, 5.2 MB: what of it a transcription reaches could only be traced.
    yield Row("the API's bundle", "MB", sizes[0], 16, 12, sizes[1])


if __name__ == "__main__":
    print(table(rows()))
