"""The parts of jobs: their messages, their items in DynamoDB, and the S3 keys of their audio.

job#ID  parts#GENERATION#0007    item: the failed attempts to transcribe a part, or its transcript
job#ID  part#0007                item: the same, written by release 0.1
parts/ID/GENERATION/0007.flac    object: the audio of a part, until the job ends
"""

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from handler.aws.items import known_fields, to_decimal
from handler.billing.ledger import MAX_ITEM_BYTES
from handler.errors import StenoError
from handler.recordings.section import Section
from handler.recordings.speech_activity import SpeechInterval
from handler.transcripts.alignment import align, align_words
from handler.transcripts.transcript import Segment, Transcript, WordTime, segments_from_json
from handler.transcripts.words import join_texts

_FIRST_PIECE_NUMBER = 10_000  # greater than any part number


@dataclass(frozen=True, kw_only=True)
class PartMessage(Section):
    """The queue message for a part or piece. `entry` is the ledger key of its result."""

    job: str
    generation: str
    entry: str

    @property
    def key(self) -> str:
        """Return the S3 key of the part's audio."""
        return f"{parts_prefix(self.job)}{self.generation}/{self.number:04}.flac"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        tuples = {
            "timeline": tuple((int(sample), float(time)) for sample, time in content["timeline"]),
            "speech": tuple(SpeechInterval(*interval) for interval in content["speech"]),
        }
        return cls(**{**known_fields(cls, content), **tuples})

    @property
    def split_depth(self) -> int:
        """Return how many times a part was split to get this piece, or 0 for a whole part."""
        return (self.number // _FIRST_PIECE_NUMBER + 1).bit_length() - 1

    def piece_number(self, index: int) -> int:
        """Return the number of the piece at `index`. It is unique in the job."""
        return 2 * self.number + _FIRST_PIECE_NUMBER + index


def parts_prefix(job: str) -> str:
    """Return the S3 key prefix under which the audio of a job's parts is stored."""
    return f"parts/{job}/"


@dataclass(frozen=True)
class PartTranscript:
    """The transcript of a part. Timestamps are relative to the start of the whole recording.

    `start` is the index of the part's first sample in the recording. `samples` is the number of
    samples in the part, or 0 if the part was split. `seconds_paid` is the number of seconds that
    were or may have been billed for the part. `entries` are the ledger keys of its results.
    `reused` is True if the transcript was paid for in an earlier generation. `model` is the name of
    the model that transcribed the part, or an empty string if no model was used. `aligned` contains
    "segment" or "word" if Steno computed these timestamps. It is None in parts of release 0.1.
    """

    number: int
    start: int
    text: str
    segments: tuple[Segment, ...] = ()
    language: str | None = None
    seconds_paid: float = 0.0
    entries: tuple[str, ...] = ()
    samples: int = 0
    reused: bool = False
    model: str = ""
    aligned: tuple[str, ...] | None = None
    languages: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        return zlib.compress(json.dumps(asdict(self)).encode())

    @classmethod
    def from_bytes(cls, stored: bytes) -> Self:
        content = json.loads(zlib.decompress(stored))
        aligned = content.get("aligned")
        tuples = {
            "segments": segments_from_json(content["segments"]),
            "entries": tuple(content["entries"]),
            "aligned": None if aligned is None else tuple(aligned),
            "languages": tuple(content.get("languages", ())),
        }
        return cls(**{**known_fields(cls, content), **tuples})


@dataclass(frozen=True)
class PartAttempts:
    """The failed attempts to transcribe a part.

    - `crashes`: the number of deliveries that started a request but have not stored its result.
      This includes a delivery that is still running.
    - `unanswered`: the number of requests that failed but may have been billed.
    - `refused`: the number of requests that failed and were not billed.
    - `seconds`: the duration of the part.
    """

    crashes: int = 0
    unanswered: int = 0
    refused: int = 0
    seconds: float = 0.0

    @property
    def seconds_paid(self) -> float:
        """Return the number of seconds that may have been billed for these attempts."""
        return (self.crashes + self.unanswered) * self.seconds


class Parts:
    """Reads and writes the DynamoDB items for parts. `table` is the name of the table."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def find(self, part: PartMessage) -> PartTranscript | PartAttempts:
        """Return the transcript of a part, or its failed attempts if it has no transcript yet."""
        request = {
            "TableName": self._table,
            "Key": _key(part.job, part.generation, part.number),
            "ConsistentRead": True,
        }
        item = self._client.get_item(**request).get("Item", {})
        return _read_transcript(item) or _read_attempts(item)

    def record_attempts(self, part: PartMessage, attempts: PartAttempts, expires: int) -> None:
        """Store the failed attempts to transcribe a part."""
        fields = {
            **asdict(attempts),
            "seconds": to_decimal(attempts.seconds),
            "entry": part.entry,
            "expires": expires,
        }
        self._put({**_key(part.job, part.generation, part.number), **fields})

    def save(self, job: str, generation: str, transcript: PartTranscript, expires: int) -> None:
        """Save the transcript of a part. Raises StenoError if it is too large for DynamoDB."""
        packed = transcript.to_bytes()
        if len(packed) > MAX_ITEM_BYTES:
            raise StenoError(
                "The transcript of a part is too large to be stored: it contains more text"
                " than a recording of speech can contain."
            )
        self._put({**_key(job, generation, transcript.number), "expires": expires, "heard": packed})

    def saved(self, job: str, generation: str, *, consistent: bool = True) -> list[PartTranscript]:
        """Return the saved transcripts of one generation, in chronological order."""
        items = self._items(job, f"parts#{generation}#", consistent=consistent)
        transcripts = filter(None, map(_read_transcript, items))
        return sorted(transcripts, key=lambda part: part.start)

    def saved_in_any_generation(
        self, job: str, generation: str
    ) -> dict[tuple[str, int], PartTranscript]:
        """Return the saved part transcripts of all generations.

        Each key consists of the ledger key and the first sample of a part. The transcripts can be
        reused for parts with the same audio at the same position. Parts that needed no request and
        parts that were split are not included. Transcripts of generations other than `generation`
        are marked as `reused`.
        """
        transcripts: dict[tuple[str, int], PartTranscript] = {}
        for item in self._items(job, "part"):
            part = _read_transcript(item)
            if not part or not part.samples or not part.entries:
                continue
            key = part.entries[0], part.start
            if item["sk"].startswith(f"parts#{generation}#"):
                transcripts[key] = part
            else:
                transcripts.setdefault(key, replace(part, reused=True))
        return transcripts

    def seconds_spent(self, job: str, generation: str) -> float:
        """Return how many seconds were or may have been billed for one generation."""
        spent = 0.0
        for item in self._items(job, f"parts#{generation}#"):
            part = _read_transcript(item)
            if part is None:
                spent += _read_attempts(item).seconds_paid
            elif not part.reused:
                spent += part.seconds_paid
        return spent

    def delete_all(self, job: str) -> Iterator[str]:
        """Delete the items of a job's parts. Before deleting an item, yield its ledger keys."""
        for item in self._items(job, "part"):
            if part := _read_transcript(item):
                yield from part.entries
            elif "entry" in item:  # the ledger may contain a claim or an incomplete result
                yield item["entry"]
            self._client.delete_item(
                TableName=self._table, Key={"pk": item["pk"], "sk": item["sk"]}
            )

    def _put(self, item: dict[str, Any]) -> None:
        self._client.put_item(TableName=self._table, Item=item)

    def _items(self, job: str, prefix: str, *, consistent: bool = True) -> Iterator[dict[str, Any]]:
        from boto3.dynamodb.conditions import Key

        request: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": Key("pk").eq(f"job#{job}") & Key("sk").begins_with(prefix),
            "ConsistentRead": consistent,
        }
        while True:
            page = self._client.query(**request)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def seconds_paid_for(saved: Iterable[PartTranscript]) -> float:
    """Return the seconds billed for these parts. Reused transcripts are not counted."""
    return sum(part.seconds_paid for part in saved if not part.reused)


def text_without_gaps(saved: Iterable[PartTranscript]) -> str:
    """Return the text from the beginning of the recording up to the first part that is missing."""
    texts, end = [], 0
    # The empty transcript of a part that was split has no samples. It precedes its pieces.
    for part in sorted(saved, key=lambda part: (part.start, part.samples)):
        if part.start > end:
            break
        texts.append(part.text)
        end += part.samples
    return join_texts(texts)


def _key(job: str, generation: str, part: int) -> dict[str, str]:
    return {"pk": f"job#{job}", "sk": f"parts#{generation}#{part:04}"}


def _read_transcript(item: dict[str, Any]) -> PartTranscript | None:
    return PartTranscript.from_bytes(item["heard"].value) if "heard" in item else None


def _read_attempts(item: dict[str, Any]) -> PartAttempts:
    counts = {name: int(item.get(name, 0)) for name in ("crashes", "unanswered", "refused")}
    return PartAttempts(**counts, seconds=float(item.get("seconds", 0)))


def part_transcript(
    section: Section,
    transcript: Transcript,
    seconds_paid: float = 0.0,
    entries: tuple[str, ...] = (),
) -> PartTranscript:
    """Convert the transcript of a section to the transcript of a part of the recording.

    The new timestamps are relative to the start of the recording. If the transcript has no
    timestamps of segments or words, they are computed from the speech in the section.
    """
    speech = section.speech or (SpeechInterval(0.0, section.seconds, 1),)
    segments = transcript.segments or align(transcript.text, speech)
    aligned: tuple[str, ...] = ()
    if transcript.text and not transcript.segments:
        aligned = ("segment", "word")
    elif transcript.lacks_words:
        aligned = ("word",)
    return PartTranscript(
        section.number,
        section.start,
        transcript.text,
        tuple(_shift(align_words(segment, speech), section) for segment in segments),
        transcript.language,
        seconds_paid,
        entries,
        section.samples,
        model=transcript.model,
        aligned=aligned,
        languages=transcript.languages,
    )


def _shift(segment: Segment, section: Section) -> Segment:
    """Convert the times of a segment in the section to times in the recording."""

    def at(seconds: float) -> float:
        return round(section.at(seconds), 3)

    words = tuple(WordTime(word.text, at(word.start), at(word.end)) for word in segment.words)
    return replace(segment, start=at(segment.start), end=at(segment.end), words=words)
