"""Measure the accuracy of cue start times, and the word error rate, for different part lengths.

    python -m benchmarks.times [part seconds ...]        default: 20 30 60 120 300

The offline engine provides the reference: the timestamps of its lines, and its transcripts of uncut
samples. Steno aligns the plain text from the engine with the audio. The recordings are the engine's
speech samples, and one longer recording that combines them. Each recording is measured
at three speeds. With the default part lengths, the benchmark takes ten minutes.

The engine returns no times of words. Its lines begin about 0.24 s before their first words, so most
of the errors are due to the reference.
"""

import sys
import tempfile
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import av
import jiwer
from moonshine_voice.utils import get_assets_path

from benchmarks.speech import SOURCES, speech_sequence
from benchmarks.words import error_positions, normalize
from handler.jobs.parts import part_transcript
from handler.recordings.cutting import SEARCH_SECONDS, Part, cut_into_parts
from handler.transcripts.subtitles import Cue, cues
from handler.transcripts.transcript import Segment, Transcript, WordTime
from infra.local.recognizer import Line, Recognizer, Transcription

RATE = 16_000
MIX = "mix"
MIX_SECONDS = 360.0
SPEEDS = (0.8, 1.0, 1.25)
_MAX_SECONDS = 12 * 3600.0


@dataclass(frozen=True)
class Figures:
    """The results for one recording at one speed and one part length. Times are in seconds."""

    line_starts: list[float]  # errors of the start times of cues that begin with a line
    all_starts: list[float]  # errors of the start times of all cues
    word_starts: list[float]  # errors of the start times of words that begin a line
    uncut_errors: int
    cut_errors: int
    words: int


def cue_start_errors(
    subtitles: Sequence[Cue], lines: Sequence[Line]
) -> tuple[list[float], list[float]]:
    """Return the absolute errors of the start times of cues, in seconds.

    The first list contains the errors of cues that begin with one of the engine's `lines`. The
    second list contains the errors of all cues. All letters of a line are assumed to take the
    same time.
    """
    line_words = [word for line in lines for word in normalize(line.text)]
    word_times = [time for line in lines for time in _word_times(line)]
    line_times = {time for line in lines for time in list(_word_times(line))[:1]}
    cue_words: list[str] = []
    cue_times: dict[int, float] = {}  # the key is the number of the cue's first word
    for cue in subtitles:
        cue_times[len(cue_words)] = cue.start / 1000
        cue_words += normalize(" ".join(cue.lines))
    line_starts, all_starts = [], []
    for chunk in jiwer.process_words(" ".join(line_words), " ".join(cue_words)).alignments[0]:
        if chunk.type in ("equal", "substitute"):
            for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
                time = word_times[chunk.ref_start_idx + offset]
                number = chunk.hyp_start_idx + offset
                if number in cue_times:
                    error = abs(cue_times[number] - time)
                    all_starts.append(error)
                    if time in line_times:
                        line_starts.append(error)
    return line_starts, all_starts


def word_start_errors(words: Sequence[WordTime], lines: Sequence[Line]) -> list[float]:
    """Return the absolute errors, in seconds, of the start times of words that begin a line."""
    word_cues = [
        Cue(round(word.start * 1000), round(word.end * 1000), (word.text,)) for word in words
    ]
    return cue_start_errors(word_cues, lines)[0]


def _word_times(line: Line) -> Iterator[float]:
    """Yield the start time of each word, assuming that all letters take the same time."""
    words = normalize(line.text)
    letters = max(sum(map(len, words)), 1)
    position = 0
    for word in words:
        yield line.start + (line.end - line.start) * position / letters
        position += len(word)


def samples(name: str, speed: float) -> bytes:
    """Change the speed of a sample but not its pitch, and return it as 16 kHz 16-bit mono PCM."""
    resampler = av.AudioResampler("s16", "mono", RATE)
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=RATE, format="s16", layout="mono")
    tempo, sink = graph.add("atempo", str(speed)), graph.add("abuffersink")
    source.link_to(tempo)
    tempo.link_to(sink)
    graph.configure()
    chunks: list[bytes] = []
    with av.open(str(get_assets_path() / name), "r") as container:
        for frame in [*container.decode(audio=0), None]:
            for resampled in resampler.resample(frame):
                graph.push(resampled)
                chunks += _pull_all(graph)
    graph.push(None)
    return b"".join([*chunks, *_pull_all(graph)])


def _pull_all(graph: Any) -> Iterator[bytes]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        yield bytes(frame.planes[0])[: frame.samples * 2]


def recording(name: str, speed: float) -> bytes:
    """Return a sample, or a mix of all samples with gaps of varying length, as a WAV file."""
    names = speech_sequence(MIX_SECONDS) if name == MIX else [(name, 0.0)]
    pcm = b"".join(samples(source, speed) + bytes(2 * round(gap * RATE)) for source, gap in names)
    return wav(pcm, RATE)


def wav(pcm: bytes, rate: int) -> bytes:
    """Return 16-bit mono PCM as a WAV file."""
    target = BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)
    return target.getvalue()


@contextmanager
def cut_recording(content: bytes, part_seconds: float) -> Iterator[Iterator[Part]]:
    """Cut a recording in the same way as a job, and yield an iterator over its parts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        path.write_bytes(content)
        search = min(SEARCH_SECONDS, part_seconds / 4)
        with cut_into_parts(
            path, Path(folder), _MAX_SECONDS, part_seconds=part_seconds, search_seconds=search
        ) as parts:
            yield parts


def transcribe(
    content: bytes, part_seconds: float, engine: Recognizer
) -> tuple[list[Segment], str]:
    """Transcribe a recording in parts, and return its aligned segments and its text."""
    segments: list[Segment] = []
    texts = []
    with cut_recording(content, part_seconds) as parts:
        for part in parts:
            text = engine.transcribe(part.path.read_bytes(), "flac").text
            segments += part_transcript(part, Transcript(text, "offline")).segments
            texts.append(text)
    return segments, " ".join(texts)


def figures(name: str, speed: float, part_seconds: float, engine: Recognizer) -> Figures:
    """Measure one recording at one speed and one part length."""
    content = recording(name, speed)
    whole: Transcription = engine.transcribe(content, "wav")
    segments, text = transcribe(content, part_seconds, engine)
    subtitles = cues(segments)
    assert all(before.end <= after.start for before, after in pairwise(subtitles))
    sources = [source for source, _ in speech_sequence(MIX_SECONDS)] if name == MIX else [name]
    reference = normalize(
        " ".join(engine.transcribe(recording(source, speed), "wav").text for source in sources)
    )
    uncut, in_parts = (
        len(error_positions(reference, normalize(transcript))) for transcript in (whole.text, text)
    )
    return Figures(
        *cue_start_errors(subtitles, whole.lines),
        word_start_errors([word for segment in segments for word in segment.words], whole.lines),
        uncut,
        in_parts,
        len(reference),
    )


def main() -> None:
    engine = Recognizer()
    for seconds in [float(number) for number in sys.argv[1:]] or [20.0, 30.0, 60.0, 120.0, 300.0]:
        print(
            f"Parts of {seconds:g} s: errors of the start times of cues that begin with a line,"
            " median / 90th percentile in seconds"
        )
        results: list[Figures] = []
        for name in (*SOURCES, MIX):
            by_speed = [figures(name, speed, seconds, engine) for speed in SPEEDS]
            cells = "   ".join(
                f"speed {speed:g}: {percentiles(result.line_starts)}"
                for speed, result in zip(SPEEDS, by_speed, strict=True)
            )
            print(f"  {name:>22}   {cells}", flush=True)
            results += by_speed
        line_starts = [error for result in results for error in result.line_starts]
        all_starts = [error for result in results for error in result.all_starts]
        word_starts = [error for result in results for error in result.word_starts]
        words = sum(result.words for result in results)
        uncut = sum(result.uncut_errors for result in results) / words
        in_parts = sum(result.cut_errors for result in results) / words
        print(f"  {'all recordings':>22}   {percentiles(line_starts)}")
        print(f"  {'all cues':>22}   {percentiles(all_starts)}")
        print(f"  {'first words of lines':>22}   {percentiles(word_starts)}")
        print(
            f"  {'word error rate':>22}   uncut {uncut:.2%}, in parts {in_parts:.2%},"
            f" difference {in_parts - uncut:+.2%}",
            flush=True,
        )


def percentiles(errors: list[float]) -> str:
    """Return the median and the 90th percentile as text."""
    return f"{median(errors):.2f} / {quantiles(errors, n=10)[-1]:.2f}"


if __name__ == "__main__":
    main()
