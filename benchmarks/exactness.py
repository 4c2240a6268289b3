"""Whether joined parts equal the uncut decode, sample by sample, for recordings of an hour and of four.

python -m benchmarks.exactness [hours ...]
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av

from benchmarks.speech import KINDS, encoded

LONGEST = str(12 * 3600.0)
RATE = 16_000


def uncut(path: Path) -> Iterator[bytes]:
    """The whole file as 16 kHz mono, frame by frame."""
    resampler = av.AudioResampler("s16", "mono", RATE)
    with av.open(str(path), "r") as container:
        for frame in container.decode(audio=0):
            frame.pts = None
            yield from _pcm(resampler.resample(frame))
        yield from _pcm(resampler.resample(None))


def joined(parts: list[dict[str, Any]]) -> Iterator[bytes]:
    at = 0
    for part in parts:
        assert part["start"] == at
        with av.open(part["path"], "r") as container:
            for samples in _pcm(container.decode(audio=0)):
                at += len(samples) // 2
                yield samples


def _pcm(frames: Iterable[Any]) -> Iterator[bytes]:
    for frame in frames:
        yield bytes(memoryview(frame.planes[0])[: frame.samples * 2])


def fingerprint(pieces: Iterable[bytes]) -> tuple[str, float]:
    digest, length = hashlib.md5(usedforsecurity=False), 0
    for piece in pieces:
        digest.update(piece)
        length += len(piece)
    return digest.hexdigest(), length / 2 / RATE


def main() -> None:
    hours = [float(number) for number in sys.argv[1:]] or [1.0, 4.0]
    different = 0
    for length, kind in ((length, kind) for length in hours for kind in KINDS):
        with tempfile.TemporaryDirectory() as folder:
            path = encoded(kind, length * 3600, Path(folder))
            command = [
                sys.executable,
                "-m",
                "handler.recordings.decoder",
                str(path),
                folder,
                LONGEST,
                "300",
                "12",
            ]
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            parts = [
                said["part"] for said in map(json.loads, output.splitlines()) if "part" in said
            ]
            (whole, seconds), (together, _) = fingerprint(uncut(path)), fingerprint(joined(parts))
            late = max(abs(part["timeline"][0][1] - part["start"] / RATE) for part in parts)
        different += whole != together
        print(
            f"{kind:>14} {length:g} h: {seconds:.3f} s in {len(parts)} parts, md5 {whole[:8]}"
            f" {'equals' if whole == together else 'DIFFERS FROM'} {together[:8]}, offsets within {late * 1000:.1f} ms",
            flush=True,
        )
    sys.exit(different)


if __name__ == "__main__":
    main()
