"""How exactly subtitles begin when their words do, and what shorter parts cost in words.

The truth is the offline engine's own: the times of its lines, and what it hears in a recording alone. The subtitles
are made of its text without times, on the engine's recordings and a mix of them, at three speeds.

python -m benchmarks.times [seconds a part ...]     (20, 30, 60, 120 and 300; ten minutes)
"""

import json
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import av
import jiwer
from moonshine_voice.utils import get_assets_path

from benchmarks.speech import SOURCES, order
from benchmarks.words import errors, normal
from handler.recordings.speech_activity import SpeechInterval
from handler.transcripts.alignment import align
from handler.transcripts.subtitles import Cue, cues
from handler.transcripts.transcript import Segment
from infra.local.engine import Heard, Line, Recognizer

RATE = 16_000
MIX = "mix"
MIX_SECONDS = 360.0
SPEEDS = (0.8, 1.0, 1.25)


@dataclass(frozen=True)
class Figures:
    """Of one recording at one speed, in parts of one length."""

    late: list[float]  # seconds, of the cues that begin as a line does
    anywhere: list[float]  # of all cues; inside a line, its words are taken to be spread evenly
    uncut_errors: int
    cut_errors: int
    words: int


def lateness(shown: Sequence[Cue], lines: Sequence[Line]) -> tuple[list[float], list[float]]:
    """By how many seconds the cues begin too early or too late: those that begin as a line does, and all."""
    said = [word for line in lines for word in normal(line.text)]
    true = [time for line in lines for time in _spread(line)]
    firsts = {time for line in lines for time in list(_spread(line))[:1]}
    read: list[str] = []
    begins: dict[int, float] = {}
    for cue in shown:
        begins[len(read)] = cue.start / 1000
        read += normal(" ".join(cue.lines))
    late, anywhere = [], []
    for chunk in jiwer.process_words(" ".join(said), " ".join(read)).alignments[0]:
        if chunk.type in ("equal", "substitute"):
            for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
                time, at = true[chunk.ref_start_idx + offset], chunk.hyp_start_idx + offset
                if at in begins:
                    anywhere.append(abs(begins[at] - time))
                    late += [abs(begins[at] - time)] if time in firsts else []
    return late, anywhere


def _spread(line: Line) -> Iterator[float]:
    words = normal(line.text)
    letters = max(sum(map(len, words)), 1)
    at = 0
    for word in words:
        yield line.start + (line.end - line.start) * at / letters
        at += len(word)


def samples(name: str, speed: float) -> bytes:
    """16 bit mono at 16 kHz, faster or slower at the same pitch."""
    resampler = av.AudioResampler("s16", "mono", RATE)
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=RATE, format="s16", layout="mono")
    tempo, sink = graph.add("atempo", str(speed)), graph.add("abuffersink")
    source.link_to(tempo)
    tempo.link_to(sink)
    graph.configure()
    pieces: list[bytes] = []
    with av.open(str(get_assets_path() / name), "r") as container:
        for frame in [*container.decode(audio=0), None]:
            for piece in resampler.resample(frame):
                graph.push(piece)
                pieces += _pulled(graph)
    graph.push(None)
    return b"".join([*pieces, *_pulled(graph)])


def _pulled(graph: Any) -> Iterator[bytes]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        yield bytes(frame.planes[0])[: frame.samples * 2]


def recording(name: str, speed: float) -> bytes:
    """One of the engine's recordings, or the mix of them all with varied gaps, as WAV."""
    names = order(MIX_SECONDS) if name == MIX else [(name, 0.0)]
    pcm = b"".join(samples(source, speed) + bytes(2 * round(gap * RATE)) for source, gap in names)
    target = BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm)
    return target.getvalue()


def subtitled(content: bytes, part_seconds: float, engine: Recognizer) -> tuple[list[Cue], str]:
    """The cues of a recording that is heard in parts, and its text."""
    segments: list[Segment] = []
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        path.write_bytes(content)
        search = min(12.0, part_seconds / 4)
        command = [
            sys.executable,
            "-m",
            "handler.recordings.decoder",
            str(path),
            folder,
            "43200",
            str(part_seconds),
            str(search),
        ]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        for part in (
            said["part"] for said in map(json.loads, output.splitlines()) if "part" in said
        ):
            text = engine.hear(Path(part["path"]).read_bytes(), "flac").text
            start = part["start"] / RATE
            laid = align(text, [SpeechInterval(*interval) for interval in part["speech"]])
            segments += [
                replace(segment, start=segment.start + start, end=segment.end + start)
                for segment in laid
            ]
            texts.append(text)
    return cues(segments), " ".join(texts)


def figures(name: str, speed: float, part_seconds: float, engine: Recognizer) -> Figures:
    content = recording(name, speed)
    whole: Heard = engine.hear(content, "wav")
    shown, text = subtitled(content, part_seconds, engine)
    assert all(before.end <= after.start for before, after in pairwise(shown))
    alone = [source for source, _ in order(MIX_SECONDS)] if name == MIX else [name]
    truth = normal(" ".join(engine.hear(recording(source, speed), "wav").text for source in alone))
    uncut, cut = (len(errors(truth, normal(heard))) for heard in (whole.text, text))
    return Figures(*lateness(shown, whole.lines), uncut, cut, len(truth))


def main() -> None:
    engine = Recognizer()
    for seconds in [float(number) for number in sys.argv[1:]] or [20.0, 30.0, 60.0, 120.0, 300.0]:
        print(
            f"Parts of {seconds:g} s: seconds between a cue's beginning and its words', half below / nine in ten below"
        )
        found: list[Figures] = []
        for name in (*SOURCES, MIX):
            some = [figures(name, speed, seconds, engine) for speed in SPEEDS]
            cells = "   ".join(
                f"at {speed:g}: {told(each.late)}" for speed, each in zip(SPEEDS, some, strict=True)
            )
            print(f"  {name:>22}   {cells}", flush=True)
            found += some
        late, anywhere = (
            [time for each in found for time in getattr(each, kind)]
            for kind in ("late", "anywhere")
        )
        words = sum(each.words for each in found)
        uncut, cut = (
            sum(getattr(each, kind) for each in found) / words
            for kind in ("uncut_errors", "cut_errors")
        )
        print(f"  {'all':>22}   {told(late)}; all cues, also those inside a line: {told(anywhere)}")
        print(
            f"  {'words':>22}   error rate uncut {uncut:.2%}, in parts {cut:.2%}: {cut - uncut:+.2%}",
            flush=True,
        )


def told(late: list[float]) -> str:
    return f"{median(late):.2f} / {quantiles(late, n=10)[-1]:.2f}"


if __name__ == "__main__":
    main()
