"""The parts of jobs: what a message says of one, and what the table and the bucket have of it.

job#ID  parts#GENERATION#0007          what was transcribed, and how often that was tried
job#ID  part#0007                      the same of release 0.1, which cannot read the others
parts/ID/GENERATION/0007.flac          the sound, until the job ends
"""

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from handler.aws.items import known_fields, to_decimal
from handler.billing.ledger import MOST_BYTES
from handler.errors import StenoError
from handler.recordings.section import Section
from handler.recordings.speech_activity import SpeechInterval
from handler.transcripts.alignment import align
from handler.transcripts.transcript import Segment, Transcript, stored_segments

_FIRST_PIECE = 10_000  # more than the parts of the longest recording


@dataclass(frozen=True, kw_only=True)
class PartMessage(Section):
    """A part as its message has it. `entry` is the key under which the ledger has its answer."""

    job: str
    generation: str
    entry: str

    @property
    def key(self) -> str:
        return f"{folder_of(self.job)}{self.generation}/{self.number:04}.flac"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Self:
        lists = {
            "timeline": tuple((int(sample), float(time)) for sample, time in said["timeline"]),
            "speech": tuple(SpeechInterval(*interval) for interval in said["speech"]),
        }
        return cls(**{**known_fields(cls, said), **lists})

    @property
    def split_depth(self) -> int:
        """Return how often a part was halved to get this piece of it; 0 for a whole part."""
        return (self.number // _FIRST_PIECE + 1).bit_length() - 1

    def piece_number(self, index: int) -> int:
        """Return the number of a piece of this part, which no other part or piece of the job has."""
        return 2 * self.number + _FIRST_PIECE + index


def folder_of(job: str) -> str:
    """Return the folder of the bucket that has the sound of a job's parts."""
    return f"parts/{job}/"


@dataclass(frozen=True)
class PartTranscript:
    """What was transcribed of a part of so many samples, in the recording's time.

    `start` is its first sample. `seconds_paid` were paid for it, or may have been; `entries` are
    the keys under which the ledger has its answers. `reused` says that it was paid in an earlier
    generation.
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

    def packed(self) -> bytes:
        return zlib.compress(json.dumps(asdict(self)).encode())

    @classmethod
    def unpacked(cls, stored: bytes) -> Self:
        told = json.loads(zlib.decompress(stored))
        lists = {"segments": stored_segments(told["segments"]), "entries": tuple(told["entries"])}
        return cls(**{**known_fields(cls, told), **lists})


@dataclass(frozen=True)
class PartAttempts:
    """How often a part was tried in vain.

    `crashes` counts the deliveries that did not come to an end, one under way included;
    `unanswered` those that may have been billed although no answer came, and `refused` those
    that were not billed. `seconds` is the length of the part.
    """

    crashes: int = 0
    unanswered: int = 0
    refused: int = 0
    seconds: float = 0.0

    @property
    def seconds_paid(self) -> float:
        """Return the seconds that may have been billed."""
        return (self.crashes + self.unanswered) * self.seconds


class Parts:
    """The parts of all jobs in the table `table`."""

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def find(self, part: PartMessage) -> PartTranscript | PartAttempts:
        """Return the transcript of a part, or how often it was tried in vain."""
        asked = {
            "TableName": self._table,
            "Key": _key(part.job, part.generation, part.number),
            "ConsistentRead": True,
        }
        item = self._client.get_item(**asked).get("Item", {})
        return PartTranscript.unpacked(item["heard"].value) if "heard" in item else _attempts(item)

    def record_attempts(self, part: PartMessage, tries: PartAttempts, expires: int) -> None:
        """Write down how often a part was tried in vain."""
        told = {
            **asdict(tries),
            "seconds": to_decimal(tries.seconds),
            "entry": part.entry,
            "expires": expires,
        }
        self._put({**_key(part.job, part.generation, part.number), **told})

    def save(self, job: str, generation: str, transcript: PartTranscript, expires: int) -> None:
        """Save what was transcribed; StenoError if it is more than the table takes."""
        packed = transcript.packed()
        if len(packed) > MOST_BYTES:
            raise StenoError(
                "The transcript of a part is too large to be stored, and larger than speech can be."
            )
        self._put({**_key(job, generation, transcript.number), "expires": expires, "heard": packed})

    def saved(self, job: str, generation: str, *, consistent: bool = True) -> list[PartTranscript]:
        """Return what was transcribed so far of one generation, in the order of the recording."""
        items = self._items(job, f"parts#{generation}#", consistent=consistent)
        found = [PartTranscript.unpacked(item["heard"].value) for item in items if "heard" in item]
        return sorted(found, key=lambda part: part.start)

    def saved_in_any_generation(
        self, job: str, generation: str
    ) -> dict[tuple[str, int], PartTranscript]:
        """Return what was transcribed in any generation, by the ledger's key and the first sample.

        The same bytes at the same place have the same transcript. Parts without an answer of the
        upstream, and those that were cut in halves, are not among them. Those that only other
        generations than `generation` have are `reused`.
        """
        found: dict[tuple[str, int], PartTranscript] = {}
        for item in self._items(job, "part"):
            part = PartTranscript.unpacked(item["heard"].value) if "heard" in item else None
            if not part or not part.samples or not part.entries:
                continue
            key = part.entries[0], part.start
            if item["sk"].startswith(f"parts#{generation}#"):
                found[key] = part
            else:
                found.setdefault(key, replace(part, reused=True))
        return found

    def seconds_spent(self, job: str, generation: str) -> float:
        """Return the seconds that were paid in one generation, or may have been."""
        spent = 0.0
        for item in self._items(job, f"parts#{generation}#"):
            if "heard" not in item:
                spent += _attempts(item).seconds_paid
            elif not (part := PartTranscript.unpacked(item["heard"].value)).reused:
                spent += part.seconds_paid
        return spent

    def delete_all(self, job: str) -> Iterator[str]:
        """Delete the items of a job's parts, each after its keys in the ledger were yielded."""
        for item in self._items(job, "part"):
            if "heard" in item:
                yield from PartTranscript.unpacked(item["heard"].value).entries
            elif "entry" in item:  # the ledger has a claim, or an answer that was cut off
                yield item["entry"]
            self._client.delete_item(
                TableName=self._table, Key={"pk": item["pk"], "sk": item["sk"]}
            )

    def _put(self, item: dict[str, Any]) -> None:
        self._client.put_item(TableName=self._table, Item=item)

    def _items(self, job: str, prefix: str, *, consistent: bool = True) -> Iterator[dict[str, Any]]:
        from boto3.dynamodb.conditions import Key

        asked: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": Key("pk").eq(f"job#{job}") & Key("sk").begins_with(prefix),
            "ConsistentRead": consistent,
        }
        while True:
            page = self._client.query(**asked)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            asked["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def seconds_paid_for(saved: Iterable[PartTranscript]) -> float:
    """Return the seconds that were paid for parts in their own generation."""
    return sum(part.seconds_paid for part in saved if not part.reused)


def _key(job: str, generation: str, part: int) -> dict[str, str]:
    return {"pk": f"job#{job}", "sk": f"parts#{generation}#{part:04}"}


def _attempts(item: dict[str, Any]) -> PartAttempts:
    counts = {name: int(item.get(name, 0)) for name in ("crashes", "unanswered", "refused")}
    return PartAttempts(**counts, seconds=float(item.get("seconds", 0)))


def part_transcript(
    section: Section,
    transcript: Transcript,
    seconds_paid: float = 0.0,
    entries: tuple[str, ...] = (),
) -> PartTranscript:
    """Return what was transcribed of a section, in the recording's time; aligned if it has no times."""
    speech = section.speech or (SpeechInterval(0.0, section.seconds, 1),)
    segments = transcript.segments or align(transcript.text, speech)
    return PartTranscript(
        section.number,
        section.start,
        transcript.text,
        tuple(
            replace(one, start=section.at(one.start), end=section.at(one.end)) for one in segments
        ),
        transcript.language,
        seconds_paid,
        entries,
        section.samples,
    )
