"""Recordings made to crash, fill, stall or mislead whoever opens them: each is heard, or refused with its reason."""

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
from handler.recordings.cutting import parts_of
from handler.worker import END_SECONDS
from tests.attacks.bombs import bombs
from tests.attacks.canaries import SECRET, canaries
from tests.attacks.hearing import Hearing
from tests.attacks.hostile import damages, polyglots, truncations
from tests.attacks.lures import lures
from tests.conftest import ROOT, uvicorn_process
from tests.integration.test_leaks import descriptors
from tests.place import Place
from tests.samples import long_recording, recording

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="looks into /proc, which is Linux's"
)

CUTTERS = 2  # at once
SENDERS = 4
LONGEST = 43_200.0
HANGS_SECONDS = 120.0  # whoever takes so long waits for something that will never come
MOST_GROWTH = 64_000_000  # of the API's memory, whatever is sent; a recording is at most 26 MB and lies in a file
REFUSED = {400, 413, 415, 422}
UNREADABLE = {
    "unreadable_recording",
    "unsupported_media",
    "empty_recording",
    "no_audio",
    "recording_too_large",
}


@pytest.fixture
def canary(tmp_path):
    (tmp_path / "canary").mkdir()
    with canaries(tmp_path / "canary") as made:
        yield made


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where this process, and what it starts, puts temp files: nowhere else, so that what is left is seen."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def cutters():
    """The processes of this one's that cut, and the recordings they cut."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(
            FileNotFoundError, ProcessLookupError
        ):  # a thread, or a process, that has ended meanwhile
            for child in map(int, (task / "children").read_text().split()):
                words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                if "handler.recordings.decoder" in words:
                    found[child] = Path(words[3])
    return found


def share(of, number, seed):
    return random.Random(seed).sample(of, min(number, len(of)))


def told(outcomes):
    """The outcomes in words: how many were heard, and how many were refused, why."""
    counted = Counter(outcomes)
    heard = counted.pop("heard", 0)
    reasons = ", ".join(f"{number:,} {code}" for code, number in counted.most_common())
    return f"{heard:,} heard, {counted.total():,} refused ({reasons})"


def outcomes_of_cutting(corpus, folder, beside=None):
    """What became of each, in turn: `heard`, or the code of its refusal."""

    def cut(number, hostile):
        return outcome_of_cutting(hostile, folder / str(number), beside)

    with ThreadPoolExecutor(CUTTERS) as pool:
        return list(pool.map(cut, range(len(corpus)), corpus))


def outcome_of_cutting(hostile, folder, beside):
    """In a process that survives it, and leaves the file alone that lies `beside` the recording."""
    (folder / "parts").mkdir(parents=True)
    path = folder / "recording"
    path.write_bytes(hostile.content)
    if beside:
        (folder / Path(beside).name).hardlink_to(beside)
    refusal = None
    try:
        with parts_of(
            path, folder / "parts", LONGEST, until=time.monotonic() + HANGS_SECONDS
        ) as parts:
            made = list(parts)
    except StenoError as error:
        refusal = error
    for part in (folder / "parts").iterdir():
        assert SECRET.encode() not in part.read_bytes()
        part.unlink()
    path.unlink()
    if refusal:
        assert refusal.code in UNREADABLE, hostile.name
        assert "within the limits" not in refusal.detail, f"{hostile.name} ended the process"
        assert str(folder) not in refusal.detail
        return refusal.code
    assert made, hostile.name
    assert 0 <= made[-1].at(made[-1].seconds) <= LONGEST + 60, hostile.name
    return "heard"


def test_whatever_is_cut_is_heard_or_refused_with_its_reason(tmp_path, often, tried, capfd, caplog):
    corpus = share(damages(40), often(30, 260), 1) + share(truncations(), often(10, 80), 2)
    corpus += share(polyglots(), often(10, 80), 3)
    outcomes = outcomes_of_cutting(corpus, tmp_path)
    assert cutters() == {}
    said = capfd.readouterr()
    assert (said.out, said.err, caplog.messages) == ("", "", [])
    tried(
        "Recordings damaged, cut off and mixed with other files, cut by the worker",
        f"{len(corpus):,}",
        told(outcomes),
    )


def test_a_header_that_claims_the_world_costs_neither_memory_nor_a_crash(
    tmp_path, often, tried, capfd, caplog
):
    corpus = share(bombs(), often(16, 1_000), 4)
    outcomes = outcomes_of_cutting(corpus, tmp_path)
    assert cutters() == {}
    said = capfd.readouterr()
    assert (said.out, said.err, caplog.messages) == ("", "", [])
    tried(
        "Headers that claim hours, channels, tables, depth and gigabytes, cut by the worker",
        f"{len(corpus):,}",
        told(outcomes),
    )


def test_a_table_of_gigabytes_ends_at_the_limit_of_memory(tmp_path, tried):
    """Without it, a recording of 1 KB takes 2.5 GB."""
    (bomb,) = (
        hostile for hostile in bombs() if hostile.name.startswith("a fragment of 67108864 samples")
    )
    (tmp_path / "recording").write_bytes(bomb.content)
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
    size = f"{len(bomb.content) / 1000:.0f} KB"
    tried(
        f"A table of gigabytes in a recording of {size}",
        "1",
        f"refused; the process had {megabytes:.0f} MB at most",
    )


def test_nothing_in_an_upload_opens_another_file_or_address(tmp_path, canary, often, tried, capfd):
    """Playlists, scripts and references, to a file and an address that are watched."""
    groups = [*lures(canary.path, canary.address).values()]
    corpus = [
        hostile for group in groups for hostile in [*group[:2], *share(group[2:], often(0, 4), 5)]
    ]
    assert canary.knocks() == []
    outcomes = outcomes_of_cutting(corpus, tmp_path, beside=canary.path)
    assert canary.knocks() == []
    assert SECRET not in "".join(capfd.readouterr())
    tried(
        "Recordings that point at other files and addresses, cut by the worker",
        f"{len(corpus):,}",
        f"nothing opened; {told(outcomes)}",
    )


def test_whatever_is_sent_in_one_request_is_answered_and_leaves_nothing_behind(
    scratch, canary, often, tried
):
    """By a server that cannot be made to grow: it opens no recording, and keeps none in memory."""
    corpus = share(damages(150), often(150, 3_000), 6) + share(truncations(), often(150, 2_000), 7)
    corpus += share(bombs(), often(40, 1_000), 8) + share(polyglots(), often(40, 1_000), 9)
    corpus += [group[0] for group in lures(canary.path, canary.address).values()]
    hearing, sent = Hearing(choosy=True), set()
    with (
        hearing.open() as url,
        uvicorn_process(OPENAI_API_KEY="any", OPENAI_BASE_URL=url) as (process, address),
    ):
        with httpx2.Client(base_url=address, timeout=60) as http:
            outcome_of_sending(http, polyglots()[0].content)
            files, before = descriptors(process), most_memory(process)

            def send(hostile):
                content = hostile.content
                sent.add(hashlib.sha256(content).hexdigest())
                return outcome_of_sending(http, content)

            with ThreadPoolExecutor(SENDERS) as senders:
                outcomes = list(senders.map(send, corpus))
        assert descriptors(process) == files
        growth = most_memory(process) - before
        assert growth < MOST_GROWTH
    assert hearing.strange == []
    assert set(hearing.digests) <= sent  # each went as it came, under a canonical name
    assert list(scratch.iterdir()) == []
    assert canary.knocks() == []
    tried(
        "Broken, hostile and misleading recordings of every kind, in one request",
        f"{len(corpus):,} recordings",
        f"{told(outcomes)}; the server's memory grew by {growth / 1e6:.0f} MB at most",
    )


def outcome_of_sending(http, content):
    answer = http.post("/api/transcribe", files={"file": content})
    assert SECRET not in answer.text
    if answer.status_code == 200:
        return "heard"
    assert answer.status_code in REFUSED
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()["code"]


def most_memory(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_what_the_speech_service_cannot_read_is_cut_and_answered_in_the_same_request(
    server, scratch, canary, often, tried, caplog
):
    """Where there is a bucket: what is refused there, or in a container that it does not take, becomes a job."""
    number = often(2, 12)
    corpus = (
        share(damages(20), 2 * number, 10)
        + share(bombs(), number, 11)
        + share(polyglots(), number, 12)
    )
    corpus += [
        group[0] for group in share([*lures(canary.path, canary.address).values()], number, 13)
    ]
    hearing = Hearing(choosy=True)
    with hearing.open() as url:
        made = server(openai_base_url=url, request_deadline_seconds=120)
        with ThreadPoolExecutor(SENDERS) as senders:
            outcomes = list(
                senders.map(lambda hostile: outcome_of_sending(made.http, hostile.content), corpus)
            )
    assert hearing.strange == []
    assert list(scratch.glob("steno*")) == []
    assert (canary.knocks(), cutters()) == ([], {})
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    tried(
        "The same where there is a bucket, so that the worker helps",
        f"{len(corpus):,} recordings",
        told(outcomes),
    )


def test_a_hostile_upload_is_a_job_that_completes_or_fails_with_its_reason(
    aws, scratch, canary, often, tried, caplog
):
    number = often(2, 25)
    corpus = (
        share(damages(20), 2 * number, 14)
        + share(bombs(), number, 15)
        + share(truncations(), number, 16)
    )
    corpus += [
        group[0] for group in share([*lures(canary.path, canary.address).values()], number, 17)
    ]
    hearing, outcomes = Hearing(), []
    with hearing.open() as url:
        place = Place(aws, openai_base_url=url)
        for first in range(0, len(corpus), 10):
            jobs = [
                place.upload(hostile.content or b"\0") for hostile in corpus[first : first + 10]
            ]
            work_until_ended(place, jobs)
            outcomes += [ended(place.job(job)) for job in jobs]
    assert hearing.strange == []
    assert list(scratch.glob("steno*")) == []
    assert (canary.knocks(), cutters()) == ([], {})
    assert SECRET not in caplog.text
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    tried("Hostile recordings of every kind, uploaded", f"{len(corpus):,} jobs", told(outcomes))


def work_until_ended(place, jobs):
    while any(place.job(job)["status"] not in ("completed", "failed") for job in jobs):
        if messages := place.messages():
            assert place.work(*messages) == []


def ended(job):
    assert SECRET not in str(job)
    if job["status"] == "completed":
        assert 0 <= job["duration"] <= LONGEST + 60
        return "heard"
    assert job["error"]["code"] in UNREADABLE
    return job["error"]["code"]


SIGNALS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


class Strike:
    """Sends a signal to the process that cuts the recording of `size` bytes, once: before a part of it is stored."""

    def __init__(self, size, number):
        self.struck = False
        self._size = size
        self._number = number
        self._lock = threading.Lock()

    def on(self, place):
        """At work in this place, which calls it before it sends any object to the bucket."""
        place.jobs.objects.client.meta.events.register("before-send.s3.PutObject", self)
        return self

    def __call__(self, **_):
        with self._lock:
            for process, recording in cutters().items():
                if not self.struck and recording.stat().st_size == self._size:
                    os.kill(process, self._number)
                    self.struck = True


def test_a_crash_inside_the_decoder_ends_its_own_job_alone(aws, scratch, often, tried):
    """While it decodes, as a flaw in FFmpeg would; the same worker's other jobs complete."""
    doomed, signals = long_recording("webm", 300), SIGNALS[: often(1, 5)]
    for number in signals:
        with Hearing().open() as url:
            place = Place(aws, openai_base_url=url)
            strike = Strike(len(doomed), number).on(place)
            contents = (recording("ogg"), doomed, recording("mp4"))
            jobs = before, job, after = [place.upload(content) for content in contents]
            records = arrived(place, jobs)
            beside = place.upload(recording("flac"))
            with ThreadPoolExecutor(2) as workers:
                working = [
                    workers.submit(place.work, *told)
                    for told in (records, arrived(place, [beside]))
                ]
                assert [left.result() for left in working] == [[], []]
            assert strike.struck
            assert (place.job(job)["status"], place.job(job)["error"]["code"]) == (
                "failed",
                "unreadable_recording",
            )
            assert {place.job(other)["status"] for other in (before, beside, after)} == {
                "completed"
            }
            place.http.post(f"/api/transcriptions/{job}/retry")
            work_until_ended(place, [job])
            assert place.job(job)["status"] == "completed"
            for each in (*jobs, beside):  # what was heard of them would not be cut again
                place.http.delete(f"/api/transcriptions/{each}")
        assert (cutters(), list(scratch.glob("steno*"))) == ({}, [])
    others = 3 * len(signals)
    tried(
        "The decoder ended by a signal in the middle of a job",
        f"{len(signals)} times, each by another signal",
        f"each failed, and completed when tried again; the {others} jobs before, beside and after them completed",
    )


def arrived(place, jobs):
    """The messages about the jobs' recordings, in the jobs' order."""
    found = []
    while len(found) < len(jobs):
        found += place.messages()
    return sorted(found, key=lambda record: [job in record["body"] for job in jobs], reverse=True)


class ShortOfTime:
    """Lambda's context of a function that has to end in five seconds, in which it cuts a part on any machine."""

    def get_remaining_time_in_millis(self):
        return (END_SECONDS + 5) * 1000


def test_a_decoder_that_hangs_is_ended_in_time_and_the_next_delivery_completes_the_job(
    aws, scratch
):
    hangs = long_recording("webm", 300)
    hearing = Hearing()
    with hearing.open() as url:
        place = Place(aws, openai_base_url=url)
        strike = Strike(len(hangs), signal.SIGSTOP).on(place)
        job = place.upload(hangs)
        message = place.about(job)
        assert place.handle(message, context=ShortOfTime()) == [message["messageId"]]
        assert strike.struck
        assert cutters() == {}
        assert place.work(message) == []
        assert place.job(job)["status"] == "completed"
    assert len(hearing.digests) == len(set(hearing.digests))  # no part was paid twice
    assert (cutters(), list(scratch.glob("steno*"))) == ({}, [])


MARK = "EVIL"
NAMES = [
    f"../../../../etc/{MARK}",
    f"..\\..\\{MARK}.webm",
    f"/etc/{MARK}",
    f"C:\\{MARK}.wav",
    f"file:///etc/{MARK}",
    f"http://127.0.0.1:1/{MARK}.m3u8",
    f"{MARK}\0.webm",
    f"{MARK}.webm\0.php",
    f"{MARK}\r\nX-Injected: {MARK}",
    f"{MARK}\n\n<script>alert(1)</script>",
    f'{MARK}"; filename="other.exe',
    f"{MARK}'; DROP TABLE jobs;--.ogg",
    f"{MARK}`id`$(id);|&.mp3",
    f"${{jndi:ldap://127.0.0.1/{MARK}}}",
    f"${{filename}}{MARK}",
    f"%2e%2e%2f{MARK}%00.wav",
    f"{MARK}" * 249,
    f"{MARK}" * 5_000,
    f"{MARK}." * 200 + "webm",
    f"{MARK}.{'x' * 100}",
    "CON",
    ".",
    "..",
    "/",
    "",
    " ",
    f"\U0001f600{MARK}\u202egpj.wav",
    f"\u0627\u0644{MARK}\u200f\u200b\ufeff.m4a",
    f"{MARK}\u0300\u0301" * 50,
    f"-rf {MARK}",
    f"{MARK}.webm/",
    f"{MARK}.\r",
    f"{MARK}.wav\n",
    f"=HYPERLINK({MARK})",
]


def test_no_name_of_a_file_gets_into_a_path_a_key_or_what_is_sent_on(
    aws, scratch, canary, webm, tried
):
    hearing = Hearing()
    with hearing.open() as url:
        place = Place(aws, openai_base_url=url)
        answers = Counter()
        for name in NAMES:
            for written in (
                name.encode(),
                name.encode("utf-16"),
                name.encode("utf-8").replace(b'"', b'\\"'),
            ):
                body = form(part(b'; name="file"; filename="' + written + b'"', webm))
                answers[
                    place.http.post("/api/transcribe", content=body, headers=MULTIPART).status_code
                ] += 1
            for label in ("audio/webm", f"audio/{name}", name):
                asked = place.ask(filename=name, content_type=label)
                answers[asked.status_code] += 1
                if asked.status_code == 201:
                    key = asked.json()["upload"]["fields"]["key"]
                    assert re.fullmatch(r"uploads/[0-9a-f]{32}\.[a-z0-9]{1,5}", key)
                    assert MARK not in asked.headers["location"]
    assert set(answers) <= {200, 201, 415, 422}
    assert answers[200] >= len(NAMES)
    assert not any(MARK in head for head in hearing.heads)
    assert (hearing.strange, list(scratch.iterdir()), canary.knocks()) == ([], [], [])
    tried(
        "File names and types with paths, quotes, line breaks, NULs and addresses in them",
        f"{answers.total():,} requests",
        f"none got anywhere: {answers[200] + answers[201]:,} taken under names of Steno's own, the others refused",
    )


def part(disposition, content):
    return b"--b\r\nContent-Disposition: form-data" + disposition + b"\r\n\r\n" + content + b"\r\n"


def form(*parts):
    return b"".join(parts) + b"--b--\r\n"


MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
