"""What cutting costs in words: speech in parts against the same speech uncut, both heard by the offline engine.

The truth is what the engine hears in each of the recordings that the speech is made of, alone.

python -m benchmarks.words [minutes]     (uncut, it hears 20 minutes in 4, and 60 in half an hour)
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jiwer
from moonshine_voice.utils import get_assets_path

from benchmarks.speech import encoded, order
from infra.local.engine import Recognizer

NEAR = 12  # words on either side of a cut


def normal(text: str) -> list[str]:
    return "".join(letter for letter in text.lower() if letter.isalnum() or letter in " '").split()


def errors(truth: list[str], heard: list[str]) -> list[int]:
    """Where the words differ: places in `heard`, one for each word that is wrong, missing or too many."""
    found = []
    for chunk in jiwer.process_words(" ".join(truth), " ".join(heard)).alignments[0]:
        if chunk.type != "equal":
            size = max(
                chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
            )
            found += [chunk.hyp_start_idx] * size
    return found


def parts_of(path: Path, folder: str) -> list[bytes]:
    command = [
        sys.executable,
        "-m",
        "handler.recordings.decoder",
        str(path),
        folder,
        "43200",
        "300",
        "12",
    ]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    told = [json.loads(line) for line in output.splitlines()]
    return [Path(said["part"]["path"]).read_bytes() for said in told if "part" in said]


def main() -> None:
    seconds = 60 * int(sys.argv[1] if len(sys.argv) > 1 else 20)
    engine = Recognizer()
    with tempfile.TemporaryDirectory() as folder:
        path = encoded("m4a", seconds, Path(folder), seconds)
        alone = {
            name: engine.hear((get_assets_path() / name).read_bytes(), "wav").text
            for name, _ in order(seconds)
        }
        truth = normal(" ".join(alone[name] for name, _ in order(seconds)))
        by_part = [normal(engine.hear(part, "flac").text) for part in parts_of(path, folder)]
        cut = [word for part in by_part for word in part]
        uncut = normal(engine.hear(path.read_bytes(), "mov").text)
    wrong = {"uncut": errors(truth, uncut), "cut": errors(truth, cut)}
    rate = {name: len(places) / len(truth) for name, places in wrong.items()}
    cuts = [sum(map(len, by_part[:number])) for number in range(1, len(by_part))]
    at_cuts = [sum(abs(place - at) <= NEAR for place in wrong["cut"]) for at in cuts]
    expected = rate["cut"] * 2 * NEAR
    print(f"{seconds / 60:.0f} minutes, {len(truth)} words, {len(by_part)} parts")
    print(
        f"word error rate uncut {rate['uncut']:.2%}, cut {rate['cut']:.2%}: {rate['cut'] - rate['uncut']:+.2%}"
    )
    print(
        f"errors within {NEAR} words of each cut: {at_cuts}; anywhere else, {expected:.1f} are as near"
    )


if __name__ == "__main__":
    main()
