"""infra/local: what `make run` starts, shows and leaves behind."""

import os
import select
import signal
import socket
import tempfile
import time
from pathlib import Path

import httpx2
import pytest

from tests.local_run import address, first_lines, started
from tests.samples import asset

WORDS = "Ever tried. Ever failed."
HEAD_OF_AN_UPLOAD = (
    b"POST /api/transcribe HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b"
)


def children(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in listed]


def gone(pid):
    """Whether the process has ended, after a while for it to do so."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended, _, _ = select.select([handle], [], [], 10)
    os.close(handle)
    return bool(ended)


def test_jobs_live_on_after_a_restart(tmp_path):
    for ended in (False, True):
        with started(tmp_path) as process:
            url = address(first_lines(process))
            if not ended:
                recording = asset("beckett.wav")
                asked = httpx2.post(
                    f"{url}/api/uploads", json={"filename": "a.wav", "size": len(recording)}
                ).json()
                form = asked["upload"]
                httpx2.post(
                    form["url"], data=form["fields"], files={"file": recording}
                ).raise_for_status()
            deadline = time.monotonic() + 60
            while (job := httpx2.get(f"{url}/api/transcriptions/{asked['id']}").json())[
                "status"
            ] != "completed":
                assert time.monotonic() < deadline, job
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        assert job["transcript"].startswith(WORDS)
    assert not list((tmp_path / ".steno").glob("tmp"))


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="watches processes in ways that are Linux's"
)
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_no_process_and_no_temp_file_stays(end):
    before = set(Path(tempfile.gettempdir()).glob("steno-*"))
    with started() as process:
        first_lines(process)
        engine_and_aws = children(process)
        assert len(engine_and_aws) == 2
        process.send_signal(end)
        process.communicate(timeout=20)
        assert all(gone(child) for child in engine_and_aws)
    assert set(Path(tempfile.gettempdir()).glob("steno-*")) == before


def test_with_a_key_it_uses_the_speech_service_and_says_so(engine):
    with started(OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=engine.url) as process:
        lines = first_lines(process)
        assert (
            f"by {engine.url} with your key (the sample below costs a fraction of a cent)" in lines
        )
        assert "offline engine" not in lines
        assert lines.count(WORDS) == 2  # by both ways
    assert len(engine.calls()) == 1  # the second way finds what the first has paid for


def test_a_token_is_asked_for_and_the_sample_has_it():
    with started(ACCESS_TOKEN="open-sesame") as process:
        lines = first_lines(process)
        assert WORDS in lines
        assert '-H "Authorization: Bearer $ACCESS_TOKEN"' in lines
        assert "open-sesame" not in lines
        assert httpx2.post(f"{address(lines)}/api/transcribe").status_code == 401


@pytest.mark.parametrize(
    ("status", "error", "remedy"),
    [
        (401, {"message": "Incorrect API key"}, "Set OPENAI_API_KEY"),
        (429, {"message": "No credit", "code": "insufficient_quota"}, "Add credit"),
        (404, {"message": "No such model"}, "Set WHISPER_MODEL"),
        (502, {"message": "Bad gateway"}, "Check OPENAI_BASE_URL"),
    ],
)
def test_a_sample_that_is_not_transcribed_is_a_warning_with_its_remedy(
    engine, status, error, remedy
):
    engine.script({"status": status, "body": {"error": error}})
    with started(OPENAI_API_KEY="sk-wrong", OPENAI_BASE_URL=engine.url) as process:
        lines = first_lines(process)
        warning = lines[lines.index("WARNING") :]
        assert error["message"] in warning
        assert remedy in warning
        assert "sk-wrong" not in lines
        assert httpx2.get(f"{address(lines)}/api/health").json()["status"] == "ok"
        answer = httpx2.post(
            f"{address(lines)}/api/transcribe", files={"file": asset("beckett.wav")}
        )
        assert answer.json()["transcript"].startswith(WORDS)


def test_a_key_that_has_become_wrong_is_noticed_at_the_next_start(engine, tmp_path):
    """The words of the last start are in the ledger, which is kept."""
    for key in ("sk-good", "sk-good", "sk-wrong"):
        if key == "sk-wrong":
            engine.script({"status": 401, "body": {"error": {"message": "Incorrect API key"}}})
        with started(tmp_path, OPENAI_API_KEY=key, OPENAI_BASE_URL=engine.url) as process:
            lines = first_lines(process)
        assert ("WARNING" in lines) == (key == "sk-wrong")
        assert lines.count(WORDS) == (0 if key == "sk-wrong" else 2)
        assert len(engine.calls()) == 1


def test_an_address_without_a_key_is_used_and_said(engine):
    with started(OPENAI_BASE_URL=engine.url) as process:
        assert f"by {engine.url}, without a key" in first_lines(process)
    assert len(engine.calls()) == 1  # the second way finds what the first has paid for


def test_a_proxy_does_not_stand_between_the_app_and_the_engine():
    with started(HTTP_PROXY="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1") as process:
        assert WORDS in first_lines(process)


def test_a_limit_below_the_sample_still_serves():
    with started(MAX_AUDIO_BYTES="1000") as process:
        assert "MAX_AUDIO_BYTES" in first_lines(process)


@pytest.mark.parametrize(
    "ignored", [False, True], ids=["in the foreground", "in a script's background"]
)
def test_ctrl_c_twice_ends_even_what_a_client_never_finishes_sending(ignored):
    """A shell's `&` starts its job with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ignored else None
    with started() as process:
        if ignored:
            signal.signal(signal.SIGINT, before)
        lines = first_lines(process)
        host, _, port = address(lines).removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as stalled:
            stalled.sendall(HEAD_OF_AN_UPLOAD)
            httpx2.get(f"{address(lines)}/api/health")  # by now the stalled request is taken
            process.send_signal(signal.SIGINT)
            assert any("Ctrl-C again" in line for line in process.stdout)
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=20)
    assert rest.endswith("Stopped.\n")
    assert "Traceback" not in errors
