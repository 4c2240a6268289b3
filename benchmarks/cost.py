"""Calculate the AWS cost per hour of audio, relative to OpenAI's price.

    python -m benchmarks.cost

The hour of audio is sent either as sixty direct requests of one minute each, or as one upload. The
cost is calculated from list prices, measured times, and the number of AWS API calls. It includes
the time during which functions wait for the upstream. The upstream is assumed to respond after 2 s
plus 2 % of the duration of the audio, which is 8 s for a part of five minutes.

For an upload, the AWS API calls of all steps are counted, including those for the messages in the
three queues. Lambda also polls empty queues, but that cost does not depend on recordings and is not
included.
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
# The time that the transcriber needs for a part in addition to the upstream's time. It includes
# the alignment (0.5 s of CPU time on the 0.29 vCPU of a function with 512 MB), the download, and a
# dozen AWS API calls.
_TRANSCRIBER_OWN_SECONDS = 2.5
_MINUTE_BYTES = 480_000  # one minute as recorded by browsers, at 64 kbit/s
_REPETITIONS = 30
_POLL_SECONDS = 0.05  # the duration of a status request
_POLL_INTERVAL = 2.0  # seconds between status requests
_POLL_CALLS = Counter(GetItem=1, Query=1)


def direct() -> tuple[float, Counter[str]]:
    """Measure a direct request with one minute of audio.

    Return the average time in seconds, excluding the upstream's response time, and the average
    number of AWS API calls. The environment variables of the process must be set for the AWS
    emulator.
    """
    from handler.main import lambda_handler  # the import reads the environment

    seconds = 0.0
    with aws_calls.count_calls() as calls:
        for _ in range(_REPETITIONS):
            # Use new audio each time, because Steno does not send the same audio twice.
            request = event(_MINUTE_BYTES)
            started = time.perf_counter()
            response = lambda_handler(request, None)  # type: ignore[arg-type] # the context is not used
            seconds += (time.perf_counter() - started) / _REPETITIONS
            assert response["statusCode"] == 200
    return seconds, Counter({name: number / _REPETITIONS for name, number in calls.items()})


def _direct_dollars() -> float:
    with (
        tempfile.TemporaryDirectory() as folder,
        processes.upstream() as upstream,
        local_aws(Path(folder)) as aws,
    ):
        environment = {
            **os.environ,
            "AUTH": "open",
            "OPENAI_API_KEY": "offline",
            "OPENAI_BASE_URL": f"{upstream}/v1",
            **aws,
        }
        command = [sys.executable, "-m", "benchmarks.cost", "direct"]
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    seconds, calls = json.loads(run.stdout.splitlines()[-1])
    duration: float = seconds + turnaround.upstream_seconds(60)
    each = aws_calls.FUNCTION + aws_calls.GATEWAY + duration * _API_GB * aws_calls.GB_SECOND
    return 60 * (each + aws_calls.dollars(calls))


def _upload_dollars() -> float:
    hour = turnaround.measure(turnaround.WORDS_PER_SECOND)
    cutter = turnaround.measure().cut * (
        _CUTTER_GB * aws_calls.GB_SECOND + _CUTTER_TMP_GB * aws_calls.TMP_GB_SECOND
    )
    transcribing = sum(hour.parts) + len(hour.parts) * _TRANSCRIBER_OWN_SECONDS
    functions = cutter + transcribing * _TRANSCRIBER_GB * aws_calls.GB_SECOND
    functions += (1 + len(hour.parts)) * aws_calls.FUNCTION
    requests = 2 + hour.seconds / _POLL_INTERVAL  # create the upload, poll, get the transcript
    api = requests * (
        aws_calls.GATEWAY + aws_calls.FUNCTION + _POLL_SECONDS * _API_GB * aws_calls.GB_SECOND
    )
    api += requests * aws_calls.dollars(_POLL_CALLS)
    # Count one ReceiveMessage call per message, because the local worker also polls empty queues.
    calls = Counter(hour.calls)
    calls["ReceiveMessage"] = hour.calls["DeleteMessage"]
    return functions + api + aws_calls.dollars(calls)


def rows() -> Iterator[Row]:
    for method, dollars in (
        ("as requests of 1 min", _direct_dollars()),
        ("as one upload", _upload_dollars()),
    ):
        yield Row(
            f"AWS cost of 1 h, {method}",
            "% of OpenAI's price",
            dollars / OPENAI_HOUR * 100,
            3.0,
            2.0,
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["direct"]:
        print(json.dumps(direct()))
    else:
        print(table(rows()))
