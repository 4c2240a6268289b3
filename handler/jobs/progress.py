"""The writes of the engine's steps on a job's item.

Each has a condition, and can be made again without harm: a response may be lost, a step may run
twice, late, or after the job was deleted.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from handler.aws.items import to_decimal
from handler.errors import StenoError
from handler.jobs.job import Job, from_item, job_id_of
from handler.transcripts.transcript import Transcript


class Superseded(Exception):
    """The job was deleted, has ended, or has another generation: the step has nothing to do."""


def job_key(identity: str) -> dict[str, str]:
    return {"pk": f"job#{identity}", "sk": "job"}


class Progress:
    """The jobs in the table `table`, as the engine's steps change them."""

    def __init__(self, client: Any, table: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def job(self, identity: str) -> Job | None:
        """Return the job as it is stored; None if there is none."""
        found = self._client.get_item(
            TableName=self._table, Key=job_key(identity), ConsistentRead=True
        )
        item = found.get("Item")
        return from_item(item) if item and item["expires"] >= self._clock() else None

    def begin(self, key: str) -> Job:
        """Begin to cut the recording `key`: one more attempt. Superseded if its job has ended."""
        return self._change(
            job_id_of(key),
            # Release 0.1 has no generations, and marks a failed job that is to be tried again.
            "SET #status = :processing, #error = :null, progressed_at = :now, retry = :no,"
            " generation = if_not_exists(generation, :none) ADD attempts :one",
            "#key = :key AND (#status IN (:awaiting, :queued, :processing) OR (#status = :failed AND retry = :yes))",
            {
                ":processing": "processing",
                ":awaiting": "awaiting_upload",
                ":queued": "queued",
                ":failed": "failed",
                ":yes": True,
                ":no": False,
                ":null": None,
                ":none": "",
                ":key": key,
                ":one": 1,
            },
        )

    def undo_begin(self, job: Job) -> None:
        """Take the attempt back: an outage of AWS is not the recording's fault."""
        with suppress(Superseded):
            running = {":before": job.attempts - 1, ":running": "processing"}
            self._change(job.id, "SET attempts = :before", "#status = :running", running)

    def start_generation(self, job: Job, generation: str, entry: str, spent: float = 0.0) -> Job:
        """Begin with a new set of parts, unless this set was begun before.

        `entry` is the key under which the ledger will have the whole transcript. `spent` are the
        seconds that were paid for the set before it.
        """
        if job.generation == generation:
            return job
        try:
            return self._change_generation(
                job,
                "SET generation = :new, entries = :entries, pieces = :zero, reserved_seconds = :zero,"
                " reserved_on = :none, #total = :null, expected = :null, progressed_at = :now,"
                " paid_earlier = :paid REMOVE saved",
                {
                    ":new": generation,
                    ":entries": [entry],
                    ":zero": 0,
                    ":none": "",
                    ":null": None,
                    ":paid": to_decimal(job.paid_earlier + spent),
                },
                " AND (generation = :none OR #total = :null)",
            )
        except Superseded:
            now = self.job(job.id)  # another delivery, or this write before its response was lost
            if now and now.status == "processing" and now.generation == generation:
                return now
            raise

    def set_expected_parts(self, job: Job, parts: int) -> Job:
        """Write down how many parts there will probably be."""
        return self._change_generation(job, "SET expected = :parts", {":parts": parts})

    def reserve(self, job: Job, day: str, seconds: float) -> Job:
        """Write down what is about to be reserved of the budget."""
        values = {":day": day, ":seconds": to_decimal(seconds)}
        return self._change_generation(
            job, "SET reserved_on = :day, reserved_seconds = :seconds", values
        )

    def add_saved(self, job: Job, part: int) -> Job:
        """Add a part to those that are saved. Return the job with all of them."""
        return self._change_generation(
            job, "SET progressed_at = :now ADD saved :part", {":part": {part}}
        )

    def split(self, job: Job, part: int, pieces: int) -> Job:
        """Replace a part by so many pieces, unless that was done before."""
        if part in job.saved:
            return job
        try:
            return self._change_generation(
                job,
                "SET progressed_at = :now ADD saved :part, pieces :pieces",
                {":part": {part}, ":pieces": pieces, ":number": part},
                " AND NOT contains(saved, :number)",
            )
        except Superseded:
            now = self.job(job.id)
            if (
                now
                and now.status == "processing"
                and now.generation == job.generation
                and part in now.saved
            ):
                return now
            raise

    def set_total(self, job: Job, total: int, duration: float) -> Job:
        """Write down that all parts are cut. This is the cutter's last write of its own."""
        return self._change_generation(
            job,
            "SET #total = :total, #duration = :duration, attempts = :zero, progressed_at = :now",
            {":total": total, ":duration": to_decimal(duration), ":zero": 0},
        )

    def complete(self, job: Job, transcript: Transcript, entries: list[str], **told: Any) -> Job:
        """Store that the transcript is complete. Only the first change to `completed` succeeds."""
        return self._end(
            job,
            "completed",
            entries=entries,
            model=transcript.model,
            duration=to_decimal(transcript.duration or 0),
            no_speech=not transcript.text,
            **told,
        )

    def fail(self, job: Job, error: StenoError, **told: Any) -> Job:
        return self._end(job, "failed", error={"code": error.code, "detail": error.detail}, **told)

    def _end(self, job: Job, status: str, **told: Any) -> Job:
        told |= {"status": status}
        sets = ", ".join(f"#{name} = :{name}" for name in told)
        return self._change_generation(
            job, f"SET {sets}", {f":{name}": value for name, value in told.items()}
        )

    def _change_generation(
        self, job: Job, change: str, values: dict[str, Any], more: str = ""
    ) -> Job:
        return self._change(
            job.id,
            change,
            f"generation = :generation AND #status = :running{more}",
            {":generation": job.generation, ":running": "processing", **values},
        )

    def _change(self, identity: str, change: str, condition: str, values: dict[str, Any]) -> Job:
        if ":now" in change:
            values = {**values, ":now": to_decimal(self._clock())}
        names = {f"#{name}": name for name in re.findall(r"#(\w+)", change + condition)}
        try:
            item = self._client.update_item(
                TableName=self._table,
                Key=job_key(identity),
                UpdateExpression=change,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                ReturnValues="ALL_NEW",
            )["Attributes"]
        except self._client.exceptions.ConditionalCheckFailedException:
            raise Superseded from None
        return from_item(item)
