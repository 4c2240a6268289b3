"""Compare the word error rates of the same speech, cut into parts and uncut.

    python -m benchmarks.words [minutes]        default: 20 minutes of speech, takes 4 minutes

The offline engine transcribes both. It also transcribes each speech sample separately. These
transcripts are the reference. For 60 minutes of speech, the benchmark takes half an hour.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jiwer
from moonshine_voice.utils import get_assets_path

from benchmarks.speech import encode_speech, speech_sequence
from infra.local.recognizer import Recognizer

NEAR = 12  # a word counts as near a cut if it is at most this many words away


def normalize(text: str) -> list[str]:
    """Return the words of the text in lower case and without punctuation."""
    return "".join(letter for letter in text.lower() if letter.isalnum() or letter in " '").split()


def error_positions(reference: list[str], transcript: list[str]) -> list[int]:
    """Return a position in `transcript` for each word that is wrong, missing or inserted."""
    positions = []
    for chunk in jiwer.process_words(" ".join(reference), " ".join(transcript)).alignments[0]:
        if chunk.type != "equal":
            size = max(
                chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
            )
            positions += [chunk.hyp_start_idx] * size
    return positions


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
    messages = [json.loads(line) for line in output.splitlines()]
    parts = [message["part"] for message in messages if "part" in message]
    return [Path(part["path"]).read_bytes() for part in parts]


def main() -> None:
    seconds = 60 * int(sys.argv[1] if len(sys.argv) > 1 else 20)
    engine = Recognizer()
    with tempfile.TemporaryDirectory() as folder:
        path = encode_speech("m4a", seconds, Path(folder), seconds)
        transcripts = {
            name: engine.transcribe((get_assets_path() / name).read_bytes(), "wav").text
            for name, _ in speech_sequence(seconds)
        }
        reference = normalize(" ".join(transcripts[name] for name, _ in speech_sequence(seconds)))
        by_part = [
            normalize(engine.transcribe(part, "flac").text) for part in parts_of(path, folder)
        ]
        cut = [word for part in by_part for word in part]
        uncut = normalize(engine.transcribe(path.read_bytes(), "mov").text)
    errors = {
        "uncut": error_positions(reference, uncut),
        "cut": error_positions(reference, cut),
    }
    rate = {name: len(positions) / len(reference) for name, positions in errors.items()}
    cuts = [sum(map(len, by_part[:number])) for number in range(1, len(by_part))]
    at_cuts = [sum(abs(position - cut_at) <= NEAR for position in errors["cut"]) for cut_at in cuts]
    expected = rate["cut"] * 2 * NEAR
    print(f"{seconds / 60:.0f} minutes, {len(reference)} words, {len(by_part)} parts")
    print(
        f"word error rate: uncut {rate['uncut']:.2%}, in parts {rate['cut']:.2%},"
        f" difference {rate['cut'] - rate['uncut']:+.2%}"
    )
    print(
        f"errors within {NEAR} words of each cut: {at_cuts};"
        f" expected at the average error rate: {expected:.1f}"
    )


if __name__ == "__main__":
    main()
