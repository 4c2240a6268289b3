"""Send recordings that try to crash, exhaust, stall or mislead the decoder.

Each recording must be transcribed or rejected with an error code.
"""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from handler.errors import StenoError
from handler.recordings.cutting import cut_into_parts
from handler.worker import SHUTDOWN_SECONDS
from tests.attacks.access_monitor import SECRET, monitor_access
from tests.attacks.corpus import mutations, polyglots, truncations
from tests.attacks.external_references import external_references
from tests.attacks.extreme_headers import extreme_headers
from tests.attacks.inspecting_upstream import InspectingUpstream
from tests.conftest import ROOT, uvicorn_process
from tests.harness import Harness
from tests.integration.test_leaks import descriptors
from tests.samples import long_recording, recording

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="needs /proc, which only Linux has"
)

CUTTERS = 2  # how many run at the same time
SENDERS = 4
MAX_DURATION_SECONDS = 43_200.0
HANG_SECONDS = 120.0  # a decoder that takes longer counts as hung
# The API's memory may grow by this many bytes. A recording has up to 26 MB and is kept in a file.
MAX_GROWTH = 64_000_000
REJECTED = {400, 413, 415, 422}
TRANSCRIBED = "transcribed"
UNREADABLE = {
    "unreadable_recording",
    "unsupported_media",
    "empty_recording",
    "no_audio",
    "recording_too_large",
}


@pytest.fixture
def monitor(tmp_path):
    (tmp_path / "canary").mkdir()
    with monitor_access(tmp_path / "canary") as access_monitor:
        yield access_monitor


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Return the folder in which this process and its child processes create temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def decoders():
    """Return a dictionary of the decoders that this process has started.

    Each key is a process id, and each value is the path of the decoder's recording.
    """
    recordings_by_pid = {}
    for task in Path("/proc/self/task").iterdir():
        # The thread or the process may have ended after it was listed.
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, (task / "children").read_text().split()):
                arguments = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                if "handler.recordings.decoder" in arguments:
                    recordings_by_pid[child] = Path(arguments[3])
    return recordings_by_pid


def sample(files, number, seed):
    return random.Random(seed).sample(files, min(number, len(files)))


def summary(outcomes):
    """Describe how many recordings were transcribed and how many failed with each error code."""
    counted = Counter(outcomes)
    transcribed = counted.pop(TRANSCRIBED, 0)
    reasons = ", ".join(f"{number:,} {code}" for code, number in counted.most_common())
    return f"{transcribed:,} transcribed, {counted.total():,} rejected ({reasons})"


def outcomes_of_cutting(corpus, folder, neighbor=None):
    """Cut all recordings. Return their outcomes in order: TRANSCRIBED or an error code."""

    def cut(number, file):
        return outcome_of_cutting(file, folder / str(number), neighbor)

    with ThreadPoolExecutor(CUTTERS) as pool:
        return list(pool.map(cut, range(len(corpus)), corpus))


def outcome_of_cutting(file, folder, neighbor):
    """Cut a recording in a child process and return TRANSCRIBED or the error code.

    `neighbor` is a file that is stored next to the recording. The decoder must not read it.
    """
    (folder / "parts").mkdir(parents=True)
    path = folder / "recording"
    path.write_bytes(file.content)
    if neighbor:
        (folder / Path(neighbor).name).hardlink_to(neighbor)
    failure = None
    try:
        with cut_into_parts(
            path, folder / "parts", MAX_DURATION_SECONDS, until=time.monotonic() + HANG_SECONDS
        ) as parts:
            cut_parts = list(parts)
    except StenoError as error:
        failure = error
    for part in (folder / "parts").iterdir():
        assert SECRET.encode() not in part.read_bytes()
        part.unlink()
    path.unlink()
    if failure:
        assert failure.code in UNREADABLE, file.name
        assert "within the limits" not in failure.detail, f"{file.name} crashed the process"
        assert str(folder) not in failure.detail
        return failure.code
    assert cut_parts, file.name
    last = cut_parts[-1]
    assert 0 <= last.at(last.seconds) <= MAX_DURATION_SECONDS + 60, file.name
    return TRANSCRIBED


def test_every_mutated_recording_is_cut_or_rejected_with_a_code(
    tmp_path, quick_or_soak, record_result, capfd, caplog
):
    corpus = sample(mutations(40), quick_or_soak(30, 260), 1) + sample(
        truncations(), quick_or_soak(10, 80), 2
    )
    corpus += sample(polyglots(), quick_or_soak(10, 80), 3)
    outcomes = outcomes_of_cutting(corpus, tmp_path)
    assert decoders() == {}
    output = capfd.readouterr()
    assert (output.out, output.err, caplog.messages) == ("", "", [])
    record_result(
        "Mutated, truncated and polyglot recordings, decoded by the worker",
        f"{len(corpus):,}",
        summary(outcomes),
    )


def test_extreme_headers_exhaust_no_memory_and_crash_no_process(
    tmp_path, quick_or_soak, record_result, capfd, caplog
):
    corpus = sample(extreme_headers(), quick_or_soak(16, 1_000), 4)
    outcomes = outcomes_of_cutting(corpus, tmp_path)
    assert decoders() == {}
    output = capfd.readouterr()
    assert (output.out, output.err, caplog.messages) == ("", "", [])
    record_result(
        "Headers with extreme durations, channels, tables, nesting and sizes, decoded by the"
        " worker",
        f"{len(corpus):,}",
        summary(outcomes),
    )


def test_a_huge_table_stops_at_the_memory_limit(tmp_path, record_result):
    """Without the memory limit, decoding this 1 KB recording uses 2.5 GB of memory."""
    (huge_table,) = (
        file for file in extreme_headers() if file.name.startswith("a fragment of 67108864 samples")
    )
    (tmp_path / "recording").write_bytes(huge_table.content)
    command = [
        sys.executable,
        "-m",
        "handler.recordings.decoder",
        str(tmp_path / "recording"),
        str(tmp_path),
        "43200",
        "300",
        "12",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.read())["failed"]["code"] == "unreadable_recording"
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    megabytes = used.ru_maxrss / 1000
    assert megabytes < 1000
    size = f"{len(huge_table.content) / 1000:.0f} KB"
    record_result(
        f"A sample table of several GB, declared in a recording of {size}",
        "1",
        f"rejected; peak memory of the process {megabytes:.0f} MB",
    )


def test_no_recording_opens_another_file_or_address(
    tmp_path, monitor, quick_or_soak, record_result, capfd
):
    """The playlists, scripts and references point to a monitored file and a monitored address."""
    groups = [*external_references(monitor.path, monitor.address).values()]
    corpus = [
        file
        for group in groups
        for file in [*group[:2], *sample(group[2:], quick_or_soak(0, 4), 5)]
    ]
    assert monitor.accesses() == []
    outcomes = outcomes_of_cutting(corpus, tmp_path, neighbor=monitor.path)
    assert monitor.accesses() == []
    assert SECRET not in "".join(capfd.readouterr())
    record_result(
        "Recordings that reference other files and addresses, decoded by the worker",
        f"{len(corpus):,}",
        f"nothing opened; {summary(outcomes)}",
    )


def test_every_direct_request_gets_a_response_and_leaks_nothing(
    scratch, monitor, quick_or_soak, record_result
):
    """The API does not decode recordings or keep them in memory, so memory usage hardly grows."""
    corpus = sample(mutations(150), quick_or_soak(150, 3_000), 6) + sample(
        truncations(), quick_or_soak(150, 2_000), 7
    )
    corpus += sample(extreme_headers(), quick_or_soak(40, 1_000), 8) + sample(
        polyglots(), quick_or_soak(40, 1_000), 9
    )
    corpus += [group[0] for group in external_references(monitor.path, monitor.address).values()]
    upstream, sent = InspectingUpstream(reject_some=True), set()
    with (
        upstream.serving_http() as url,
        uvicorn_process(OPENAI_API_KEY="any", OPENAI_BASE_URL=url) as (process, address),
    ):
        with httpx2.Client(base_url=address, timeout=60) as http:
            outcome_of_sending(http, polyglots()[0].content)
            files, before = descriptors(process), peak_memory(process)

            def send(file):
                content = file.content
                sent.add(hashlib.sha256(content).hexdigest())
                return outcome_of_sending(http, content)

            with ThreadPoolExecutor(SENDERS) as senders:
                outcomes = list(senders.map(send, corpus))
        assert descriptors(process) == files
        growth = peak_memory(process) - before
        assert growth < MAX_GROWTH
    assert upstream.unexpected_names == []
    assert set(upstream.digests) <= sent  # each was forwarded unchanged
    assert list(scratch.iterdir()) == []
    assert monitor.accesses() == []
    record_result(
        "Malicious recordings of every kind, in direct requests",
        f"{len(corpus):,} recordings",
        f"{summary(outcomes)}; the peak memory of the server grew by {growth / 1e6:.0f} MB",
    )


def outcome_of_sending(http, content):
    response = http.post("/api/transcribe", files={"file": content})
    assert SECRET not in response.text
    if response.status_code == 200:
        return TRANSCRIBED
    assert response.status_code in REJECTED
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()["code"]


def peak_memory(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_a_recording_that_the_upstream_rejects_is_converted_in_the_same_request(
    server, scratch, monitor, quick_or_soak, record_result, caplog
):
    """If the upstream rejects a recording or does not support its container, a job is created.

    This requires a bucket.
    """
    number = quick_or_soak(2, 12)
    corpus = (
        sample(mutations(20), 2 * number, 10)
        + sample(extreme_headers(), number, 11)
        + sample(polyglots(), number, 12)
    )
    corpus += [
        group[0]
        for group in sample(
            [*external_references(monitor.path, monitor.address).values()], number, 13
        )
    ]
    upstream = InspectingUpstream(reject_some=True)
    with upstream.serving_http() as url:
        http = server(openai_base_url=url, request_deadline_seconds=120).http
        with ThreadPoolExecutor(SENDERS) as senders:
            outcomes = list(
                senders.map(lambda file: outcome_of_sending(http, file.content), corpus)
            )
    assert upstream.unexpected_names == []
    assert list(scratch.glob("steno*")) == []
    assert (monitor.accesses(), decoders()) == ([], {})
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    record_result(
        "Malicious recordings of every kind, in direct requests that can become jobs",
        f"{len(corpus):,} recordings",
        summary(outcomes),
    )


def test_the_job_of_a_malicious_upload_completes_or_fails_with_a_code(
    aws, scratch, monitor, quick_or_soak, record_result, caplog
):
    number = quick_or_soak(2, 25)
    corpus = (
        sample(mutations(20), 2 * number, 14)
        + sample(extreme_headers(), number, 15)
        + sample(truncations(), number, 16)
    )
    corpus += [
        group[0]
        for group in sample(
            [*external_references(monitor.path, monitor.address).values()], number, 17
        )
    ]
    upstream, outcomes = InspectingUpstream(), []
    with upstream.serving_http() as url:
        harness = Harness(aws, openai_base_url=url)
        for first in range(0, len(corpus), 10):
            jobs = [harness.upload(file.content or b"\0") for file in corpus[first : first + 10]]
            run_until_finished(harness, jobs)
            outcomes += [outcome_of_job(harness.job(job)) for job in jobs]
    assert upstream.unexpected_names == []
    assert list(scratch.glob("steno*")) == []
    assert (monitor.accesses(), decoders()) == ([], {})
    assert SECRET not in caplog.text
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    record_result(
        "Malicious recordings of every kind, uploaded", f"{len(corpus):,} jobs", summary(outcomes)
    )


def run_until_finished(harness, jobs):
    while any(harness.job(job)["status"] not in ("completed", "failed") for job in jobs):
        if messages := harness.messages():
            assert harness.run_worker(*messages) == []


def outcome_of_job(job):
    assert SECRET not in str(job)
    if job["status"] == "completed":
        assert 0 <= job["duration"] <= MAX_DURATION_SECONDS + 60
        return TRANSCRIBED
    assert job["error"]["code"] in UNREADABLE
    return job["error"]["code"]


SIGNALS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


class SignalOnUpload:
    """Sends a signal to the decoder process whose recording has a size of `size` bytes.

    The signal is sent once, just before a part is uploaded to S3.
    """

    def __init__(self, size, number):
        self.sent = False
        self._size = size
        self._number = number
        self._lock = threading.Lock()

    def register(self, harness):
        """Make the harness's S3 client call this object before each upload. Return the object."""
        harness.jobs.objects.client.meta.events.register("before-send.s3.PutObject", self)
        return self

    def __call__(self, **_):
        with self._lock:
            for process, recording in decoders().items():
                if not self.sent and recording.stat().st_size == self._size:
                    os.kill(process, self._number)
                    self.sent = True


def test_a_decoder_crash_fails_only_its_own_job(aws, scratch, quick_or_soak, record_result):
    """The test kills the decoder with a signal, to simulate a crash caused by a bug in FFmpeg.

    The worker completes its other jobs.
    """
    crashing, signals = long_recording("webm", 300), SIGNALS[: quick_or_soak(1, 5)]
    for number in signals:
        with InspectingUpstream().serving_http() as url:
            harness = Harness(aws, openai_base_url=url)
            injected_signal = SignalOnUpload(len(crashing), number).register(harness)
            contents = (recording("ogg"), crashing, recording("mp4"))
            jobs = before, job, after = [harness.upload(content) for content in contents]
            records = upload_records(harness, jobs)
            concurrent = harness.upload(recording("flac"))
            with ThreadPoolExecutor(2) as workers:
                futures = [
                    workers.submit(harness.run_worker, *batch)
                    for batch in (records, upload_records(harness, [concurrent]))
                ]
                assert [future.result() for future in futures] == [[], []]
            assert injected_signal.sent
            assert (harness.job(job)["status"], harness.job(job)["error"]["code"]) == (
                "failed",
                "unreadable_recording",
            )
            assert {harness.job(other)["status"] for other in (before, concurrent, after)} == {
                "completed"
            }
            harness.http.post(f"/api/transcriptions/{job}/retry")
            run_until_finished(harness, [job])
            assert harness.job(job)["status"] == "completed"
            # Delete the jobs, because the next round must not reuse their transcripts.
            for each in (*jobs, concurrent):
                harness.http.delete(f"/api/transcriptions/{each}")
        assert (decoders(), list(scratch.glob("steno*"))) == ({}, [])
    others = 3 * len(signals)
    record_result(
        "A decoder killed by a signal in the middle of a job",
        f"{len(signals)} times, each with a different signal",
        f"each job failed, and completed after a retry; {others} other jobs of the worker"
        " completed",
    )


def upload_records(harness, jobs):
    """Receive the S3 event notifications for the uploads of these jobs, in the same order."""
    records = []
    while len(records) < len(jobs):
        records += harness.messages()
    return sorted(records, key=lambda record: [job in record["body"] for job in jobs], reverse=True)


class ShortTimeout:
    """A Lambda context that leaves the worker five seconds, which is enough to cut one part."""

    def get_remaining_time_in_millis(self):
        return (SHUTDOWN_SECONDS + 5) * 1000


def test_a_hanging_decoder_is_killed_and_the_next_delivery_completes_the_job(aws, scratch):
    hanging = long_recording("webm", 300)
    upstream = InspectingUpstream()
    with upstream.serving_http() as url:
        harness = Harness(aws, openai_base_url=url)
        injected_signal = SignalOnUpload(len(hanging), signal.SIGSTOP).register(harness)
        job = harness.upload(hanging)
        message = harness.upload_record(job)
        assert harness.handle(message, context=ShortTimeout()) == [message["messageId"]]
        assert injected_signal.sent
        assert decoders() == {}
        assert harness.run_worker(message) == []
        assert harness.job(job)["status"] == "completed"
    assert len(upstream.digests) == len(set(upstream.digests))  # no part was billed twice
    assert (decoders(), list(scratch.glob("steno*"))) == ({}, [])


MARKER = "EVIL"
FILE_NAMES = [
    f"../../../../etc/{MARKER}",
    f"..\\..\\{MARKER}.webm",
    f"/etc/{MARKER}",
    f"C:\\{MARKER}.wav",
    f"file:///etc/{MARKER}",
    f"http://127.0.0.1:1/{MARKER}.m3u8",
    f"{MARKER}\0.webm",
    f"{MARKER}.webm\0.php",
    f"{MARKER}\r\nX-Injected: {MARKER}",
    f"{MARKER}\n\n<script>alert(1)</script>",
    f'{MARKER}"; filename="other.exe',
    f"{MARKER}'; DROP TABLE jobs;--.ogg",
    f"{MARKER}`id`$(id);|&.mp3",
    f"${{jndi:ldap://127.0.0.1/{MARKER}}}",
    f"${{filename}}{MARKER}",
    f"%2e%2e%2f{MARKER}%00.wav",
    f"{MARKER}" * 249,
    f"{MARKER}" * 5_000,
    f"{MARKER}." * 200 + "webm",
    f"{MARKER}.{'x' * 100}",
    "CON",
    ".",
    "..",
    "/",
    "",
    " ",
    f"\U0001f600{MARKER}\u202egpj.wav",
    f"\u0627\u0644{MARKER}\u200f\u200b\ufeff.m4a",
    f"{MARKER}\u0300\u0301" * 50,
    f"-rf {MARKER}",
    f"{MARKER}.webm/",
    f"{MARKER}.\r",
    f"{MARKER}.wav\n",
    f"=HYPERLINK({MARKER})",
]


def test_no_file_name_reaches_a_path_an_object_key_or_the_upstream(
    aws, scratch, monitor, webm, record_result
):
    upstream = InspectingUpstream()
    with upstream.serving_http() as url:
        harness = Harness(aws, openai_base_url=url)
        responses = Counter()
        for name in FILE_NAMES:
            for encoded_name in (
                name.encode(),
                name.encode("utf-16"),
                name.encode("utf-8").replace(b'"', b'\\"'),
            ):
                body = form(part(b'; name="file"; filename="' + encoded_name + b'"', webm))
                responses[
                    harness.http.post(
                        "/api/transcribe", content=body, headers=MULTIPART
                    ).status_code
                ] += 1
            for media_type in ("audio/webm", f"audio/{name}", name):
                created = harness.request_upload(filename=name, content_type=media_type)
                responses[created.status_code] += 1
                if created.status_code == 201:
                    key = created.json()["upload"]["fields"]["key"]
                    assert re.fullmatch(r"uploads/[0-9a-f]{32}\.[a-z0-9]{1,5}", key)
                    assert MARKER not in created.headers["location"]
    assert set(responses) <= {200, 201, 415, 422}
    assert responses[200] >= len(FILE_NAMES)
    assert not any(MARKER in envelope for envelope in upstream.envelopes)
    assert (upstream.unexpected_names, list(scratch.iterdir()), monitor.accesses()) == ([], [], [])
    record_result(
        "File names and media types with paths, quotes, line breaks, NULs and addresses",
        f"{responses.total():,} requests",
        f"{responses[200] + responses[201]:,} accepted under generated names, the others rejected",
    )


def part(disposition, content):
    return b"--b\r\nContent-Disposition: form-data" + disposition + b"\r\n\r\n" + content + b"\r\n"


def form(*parts):
    return b"".join(parts) + b"--b--\r\n"


MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
