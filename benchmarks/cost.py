"""What AWS takes for an hour of sound, beside what OpenAI takes: measured seconds and calls at the list prices.

    python -m benchmarks.cost

In one request each, as sixty recordings of a minute; and by upload, as one recording of an hour. The speech service is
taken to answer after 2 s and a fiftieth of the length, which a function waits for: 8 s for a part of five minutes.

Of an upload, the calls of AWS are those of all steps, with what is stored, listed and deleted, and each message of the
three queues. What Lambda asks the queues while they are empty is not in it: that costs the same without any recording.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks import aws_calls, processes, turnaround
from benchmarks.row import Row, table
from benchmarks.warm import event
from infra.local.aws import local_aws

OPENAI_HOUR = 0.0045 * 60  # gpt-transcribe
_API_GB, _CUTTER_GB, _CUTTER_TMP_GB, _TRANSCRIBER_GB = 1.0, 1769 / 1024, 3.5, 0.5
# Of each part besides the answer: half a second of CPU to align the words, with the 29 % of a processor that 512 MB
# have, its sound, and a dozen calls of AWS.
_TRANSCRIBER_OWN_SECONDS = 2.5
_MINUTE_BYTES = 480_000  # of what browsers record, at 64 kbit/s
_TIMES = 30
_POLL_SECONDS = 0.05
_POLLS_EVERY = 2.0
_OF_A_POLL = Counter(GetItem=1, Query=1)


def direct() -> tuple[float, Counter[str]]:
    """Seconds and calls of AWS that a minute in one request takes, beside the speech service: in a process of its own,
    whose environment names the local AWS."""
    from handler.main import lambda_handler  # only in the process whose environment is meant for it

    seconds = 0.0
    with aws_calls.counted() as calls:
        for _ in range(_TIMES):
            recorded = event(_MINUTE_BYTES)  # another one each time: the same would cost nothing
            began = time.perf_counter()
            assert lambda_handler(recorded, None)["statusCode"] == 200  # type: ignore[arg-type] # no context is asked for
            seconds += (time.perf_counter() - began) / _TIMES
    return seconds, Counter({name: times / _TIMES for name, times in calls.items()})


def _direct_dollars() -> float:
    with (
        tempfile.TemporaryDirectory() as folder,
        processes.upstream() as upstream,
        local_aws(Path(folder)) as aws,
    ):
        told = {
            "AUTH": "open",
            "OPENAI_API_KEY": "offline",
            "OPENAI_BASE_URL": f"{upstream}/v1",
            **aws,
        }
        command = [sys.executable, "-m", "benchmarks.cost", "direct"]
        run = subprocess.run(
            command, env={**os.environ, **told}, stdout=subprocess.PIPE, check=True
        )
    seconds, calls = json.loads(run.stdout.splitlines()[-1])
    lasting: float = seconds + turnaround.upstream_seconds(60)
    each = aws_calls.FUNCTION + aws_calls.GATEWAY + lasting * _API_GB * aws_calls.GB_SECOND
    return 60 * (each + aws_calls.dollars(calls))


def _upload_dollars() -> float:
    hour = turnaround.measured(turnaround.WORDS_PER_SECOND)
    cutter = turnaround.measured().cut * (
        _CUTTER_GB * aws_calls.GB_SECOND + _CUTTER_TMP_GB * aws_calls.TMP_GB_SECOND
    )
    transcribing = sum(hour.parts) + len(hour.parts) * _TRANSCRIBER_OWN_SECONDS
    functions = cutter + transcribing * _TRANSCRIBER_GB * aws_calls.GB_SECOND
    functions += (1 + len(hour.parts)) * aws_calls.FUNCTION
    requests = 2 + hour.seconds / _POLLS_EVERY  # the form, the polls and the transcript
    api = requests * (
        aws_calls.GATEWAY + aws_calls.FUNCTION + _POLL_SECONDS * _API_GB * aws_calls.GB_SECOND
    )
    api += requests * aws_calls.dollars(_OF_A_POLL)
    # Each message is received once. The queues of this machine are asked every second as well.
    calls = Counter(hour.calls)
    calls["ReceiveMessage"] = hour.calls["DeleteMessage"]
    return functions + api + aws_calls.dollars(calls)


def rows() -> Iterator[Row]:
    for way, dollars in (
        ("in requests of a minute", _direct_dollars()),
        ("by upload", _upload_dollars()),
    ):
        yield Row(
            f"AWS's own cost of 1 h, {way}",
            "% of OpenAI's fee",
            dollars / OPENAI_HOUR * 100,
            3.0,
            2.0,
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["direct"]:
        print(json.dumps(direct()))
    else:
        print(table(rows()))
