"""Check that the parts of a recording, joined together, contain exactly its decoded samples.

python -m benchmarks.exactness [hours ...]        default: recordings of 1 and 4 hours
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

from benchmarks.speech import KINDS, encode_speech

MAX_SECONDS = str(12 * 3600.0)
RATE = 16_000


def uncut(path: Path) -> Iterator[bytes]:
    """Decode the file, and yield its audio as 16-bit mono PCM at 16 kHz."""
    resampler = av.AudioResampler("s16", "mono", RATE)
    with av.open(str(path), "r") as container:
        for frame in container.decode(audio=0):
            frame.pts = None
            yield from _pcm(resampler.resample(frame))
        yield from _pcm(resampler.resample(None))


def join_parts(parts: list[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the PCM audio of all parts in order, and assert that there are no gaps between them."""
    position = 0
    for part in parts:
        assert part["start"] == position
        with av.open(part["path"], "r") as container:
            for samples in _pcm(container.decode(audio=0)):
                position += len(samples) // 2
                yield samples


def _pcm(frames: Iterable[Any]) -> Iterator[bytes]:
    for frame in frames:
        yield bytes(memoryview(frame.planes[0])[: frame.samples * 2])


def fingerprint(pieces: Iterable[bytes]) -> tuple[str, float]:
    """Return the MD5 hash of PCM audio at RATE, and its duration in seconds."""
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
            path = encode_speech(kind, length * 3600, Path(folder))
            command = [
                sys.executable,
                "-m",
                "handler.recordings.decoder",
                str(path),
                folder,
                MAX_SECONDS,
                "300",
                "12",
            ]
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            messages = [json.loads(line) for line in output.splitlines()]
            parts = [message["part"] for message in messages if "part" in message]
            whole, seconds = fingerprint(uncut(path))
            joined, _ = fingerprint(join_parts(parts))
            offset = max(abs(part["timeline"][0][1] - part["start"] / RATE) for part in parts)
        different += whole != joined
        print(
            f"{kind:>14} {length:g} h: {seconds:.3f} s in {len(parts)} parts, md5 {whole[:8]}"
            f" {'equals' if whole == joined else 'DIFFERS FROM'} {joined[:8]},"
            f" timeline offsets up to {offset * 1000:.1f} ms",
            flush=True,
        )
    sys.exit(different)


if __name__ == "__main__":
    main()
