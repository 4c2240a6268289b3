"""Updates the DynamoDB item of a job while the steps of the job run.

Each update is conditional and can be repeated safely. This is necessary because the response to an
update may be lost, and because a step may run twice, late, or after the job was deleted.
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
    """Raised to stop a step: its job was deleted, has ended, or has a new generation."""


def job_key(job_id: str) -> dict[str, str]:
    return {"pk": f"job#{job_id}", "sk": "job"}


class Progress:
    """Updates jobs in the DynamoDB table `table`.

    The methods that update a job return the updated job. They raise Superseded if the job was
    deleted, has ended, or has another generation.
    """

    def __init__(self, client: Any, table: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def job(self, job_id: str) -> Job | None:
        """Return the job as stored, or None if it does not exist or has expired."""
        response = self._client.get_item(
            TableName=self._table, Key=job_key(job_id), ConsistentRead=True
        )
        item = response.get("Item")
        return from_item(item) if item and item["expires"] >= self._clock() else None

    def begin_attempt(self, key: str) -> Job:
        """Set a job to `processing`, and increase its number of attempts to cut the recording.

        `key` is the S3 key of the recording. Raises Superseded if the job was deleted or has ended.
        """
        return self._change(
            job_id_of(key),
            # Items written by release 0.1 have no generation. That release retries a failed job by
            # setting `retry`, without changing the status.
            "SET #status = :processing, #error = :null, progressed_at = :now, retry = :no,"
            " generation = if_not_exists(generation, :none) ADD attempts :one",
            "#key = :key AND (#status IN (:awaiting, :queued, :processing)"
            " OR (#status = :failed AND retry = :yes))",
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

    def undo_attempt(self, job: Job) -> None:
        """Subtract the current attempt from `attempts`, because an AWS outage interrupted it.

        Does nothing if the job was deleted or has ended.
        """
        with suppress(Superseded):
            values = {":before": job.attempts - 1, ":running": "processing"}
            self._change(job.id, "SET attempts = :before", "#status = :running", values)

    def start_generation(
        self, job: Job, generation: str, ledger_key: str, spent: float = 0.0
    ) -> Job:
        """Start this generation of parts, unless it is already the current one.

        `ledger_key` is the ledger key of the transcript of the whole recording. `spent` is the
        number of seconds billed for the previous generation. Also raises Superseded if
        all parts of the previous generation have already been cut.
        """
        if job.generation == generation:
            return job
        try:
            return self._change_generation(
                job,
                "SET generation = :new, entries = :entries, pieces = :zero,"
                " reserved_seconds = :zero, reserved_on = :none, #total = :null, expected = :null,"
                " progressed_at = :now, paid_earlier = :paid REMOVE saved",
                {
                    ":new": generation,
                    ":entries": [ledger_key],
                    ":zero": 0,
                    ":none": "",
                    ":null": None,
                    ":paid": to_decimal(job.paid_earlier + spent),
                },
                " AND (generation = :none OR #total = :null)",
            )
        except Superseded:
            # Another delivery may have made this update, or the response may have been lost.
            current = self.job(job.id)
            if current and current.status == "processing" and current.generation == generation:
                return current
            raise

    def set_expected_parts(self, job: Job, parts: int) -> Job:
        """Store the estimated number of parts."""
        return self._change_generation(job, "SET expected = :parts", {":parts": parts})

    def reserve(self, job: Job, day: str, seconds: float) -> Job:
        """Store how many seconds will be reserved for the job, and from which day's budget."""
        values = {":day": day, ":seconds": to_decimal(seconds)}
        return self._change_generation(
            job, "SET reserved_on = :day, reserved_seconds = :seconds", values
        )

    def add_saved(self, job: Job, part: int) -> Job:
        """Record in the job that this part is saved."""
        return self._change_generation(
            job, "SET progressed_at = :now ADD saved :part", {":part": {part}}
        )

    def split(self, job: Job, part: int, pieces: int) -> Job:
        """Replace a part with `pieces` pieces, unless this was already done."""
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
            current = self.job(job.id)
            if (
                current
                and current.status == "processing"
                and current.generation == job.generation
                and part in current.saved
            ):
                return current
            raise

    def set_total(self, job: Job, total: int, duration: float) -> Job:
        """Store the number of parts and the duration in seconds after the recording has been cut.

        This is the last update by the cut step, unless the step also ends the job.
        """
        return self._change_generation(
            job,
            "SET #total = :total, #duration = :duration, attempts = :zero, progressed_at = :now",
            {":total": total, ":duration": to_decimal(duration), ":zero": 0},
        )

    def complete(self, job: Job, transcript: Transcript, entries: list[str], **fields: Any) -> Job:
        """Set the job to `completed`, and store `fields` too. Only the first call succeeds."""
        return self._end(
            job,
            "completed",
            entries=entries,
            model=transcript.model,
            duration=to_decimal(transcript.duration or 0),
            no_speech=not transcript.text,
            **fields,
        )

    def fail(self, job: Job, error: StenoError, **fields: Any) -> Job:
        """Set the job to `failed`, and store the error and the `fields`."""
        details = {"code": error.code, "detail": error.detail}
        return self._end(job, "failed", error=details, **fields)

    def _end(self, job: Job, status: str, **fields: Any) -> Job:
        fields |= {"status": status}
        assignments = ", ".join(f"#{name} = :{name}" for name in fields)
        values = {f":{name}": value for name, value in fields.items()}
        return self._change_generation(job, f"SET {assignments}", values)

    def _change_generation(
        self, job: Job, change: str, values: dict[str, Any], condition: str = ""
    ) -> Job:
        """Update the job if it is `processing` and still has the same generation.

        `condition` is appended to the condition expression of the update.
        """
        return self._change(
            job.id,
            change,
            f"generation = :generation AND #status = :running{condition}",
            {":generation": job.generation, ":running": "processing", **values},
        )

    def _change(self, job_id: str, change: str, condition: str, values: dict[str, Any]) -> Job:
        if ":now" in change:
            values = {**values, ":now": to_decimal(self._clock())}
        names = {f"#{name}": name for name in re.findall(r"#(\w+)", change + condition)}
        try:
            item = self._client.update_item(
                TableName=self._table,
                Key=job_key(job_id),
                UpdateExpression=change,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                ReturnValues="ALL_NEW",
            )["Attributes"]
        except self._client.exceptions.ConditionalCheckFailedException:
            raise Superseded from None
        return from_item(item)
