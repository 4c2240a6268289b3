"""Test `make run` (infra/local): what it starts, prints and cleans up."""

import os
import select
import signal
import socket
import tempfile
import time
from pathlib import Path

import httpx2
import pytest

from tests.local_run import address, first_lines, local_process
from tests.samples import asset

WORDS = "Ever tried. Ever failed."
UPLOAD_HEAD = (
    b"POST /api/transcribe HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b"
)


def children(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in listed]


def has_ended(pid):
    """Wait up to 10 s for the process to end. Return whether it ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended, _, _ = select.select([handle], [], [], 10)
    os.close(handle)
    return bool(ended)


def test_jobs_survive_a_restart(tmp_path):
    for is_restarted in (False, True):
        with local_process(tmp_path) as process:
            url = address(first_lines(process))
            if not is_restarted:
                recording = asset("beckett.wav")
                created = httpx2.post(
                    f"{url}/api/uploads", json={"filename": "a.wav", "size": len(recording)}
                ).json()
                form = created["upload"]
                httpx2.post(
                    form["url"], data=form["fields"], files={"file": recording}
                ).raise_for_status()
            deadline = time.monotonic() + 60
            while (job := httpx2.get(f"{url}/api/transcriptions/{created['id']}").json())[
                "status"
            ] != "completed":
                assert time.monotonic() < deadline, job
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        assert job["transcript"].startswith(WORDS)
    assert not list((tmp_path / ".steno").glob("tmp"))


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open, which only Linux has")
@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_and_no_temporary_file_remains_after_any_signal(stop_signal):
    before = set(Path(tempfile.gettempdir()).glob("steno-*"))
    with local_process() as process:
        first_lines(process)
        engine_and_aws = children(process)
        assert len(engine_and_aws) == 2
        process.send_signal(stop_signal)
        process.communicate(timeout=20)
        assert all(has_ended(child) for child in engine_and_aws)
    assert set(Path(tempfile.gettempdir()).glob("steno-*")) == before


def test_with_a_key_it_uses_the_upstream_and_prints_its_url(engine):
    with local_process(OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=engine.url) as process:
        lines = first_lines(process)
        assert (
            f"{engine.url} with your API key (the sample below costs a fraction of a cent)" in lines
        )
        assert "offline engine" not in lines
        assert lines.count(WORDS) == 2  # from a direct request and from a job
    assert len(engine.calls()) == 1  # the job reuses the paid result of the request


def test_the_sample_requests_send_the_configured_token():
    with local_process(ACCESS_TOKEN="open-sesame") as process:
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
def test_a_failed_sample_prints_a_warning_with_a_remedy(engine, status, error, remedy):
    engine.script({"status": status, "body": {"error": error}})
    with local_process(OPENAI_API_KEY="sk-wrong", OPENAI_BASE_URL=engine.url) as process:
        lines = first_lines(process)
        warning = lines[lines.index("WARNING") :]
        assert error["message"] in warning
        assert remedy in warning
        assert "sk-wrong" not in lines
        assert httpx2.get(f"{address(lines)}/api/health").json()["status"] == "ok"
        response = httpx2.post(
            f"{address(lines)}/api/transcribe", files={"file": asset("beckett.wav")}
        )
        assert response.json()["transcript"].startswith(WORDS)


def test_a_revoked_key_is_detected_at_the_next_start(engine, tmp_path):
    """The ledger still contains the transcript from the previous start."""
    for key in ("sk-good", "sk-good", "sk-wrong"):
        if key == "sk-wrong":
            engine.script({"status": 401, "body": {"error": {"message": "Incorrect API key"}}})
        with local_process(tmp_path, OPENAI_API_KEY=key, OPENAI_BASE_URL=engine.url) as process:
            lines = first_lines(process)
        assert ("WARNING" in lines) == (key == "sk-wrong")
        assert lines.count(WORDS) == (0 if key == "sk-wrong" else 2)
        assert len(engine.calls()) == 1


def test_a_base_url_without_a_key_is_used_and_printed(engine):
    with local_process(OPENAI_BASE_URL=engine.url) as process:
        assert f"{engine.url} without an API key" in first_lines(process)
    assert len(engine.calls()) == 1  # the job reuses the paid result of the request


def test_requests_to_the_local_engine_bypass_the_proxy():
    with local_process(HTTP_PROXY="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1") as process:
        assert WORDS in first_lines(process)


def test_it_starts_if_the_sample_exceeds_the_size_limit():
    with local_process(MAX_AUDIO_BYTES="1000") as process:
        assert "MAX_AUDIO_BYTES" in first_lines(process)


@pytest.mark.parametrize("ignored", [False, True], ids=["foreground", "background"])
def test_a_second_ctrl_c_stops_the_server_despite_an_unfinished_request(ignored):
    """A server that a shell script starts in the background (`&`) initially ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ignored else None
    with local_process() as process:
        if ignored:
            signal.signal(signal.SIGINT, before)
        lines = first_lines(process)
        host, _, port = address(lines).removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as stalled:
            stalled.sendall(UPLOAD_HEAD)
            # When this request completes, the server has also accepted the stalled request.
            httpx2.get(f"{address(lines)}/api/health")
            process.send_signal(signal.SIGINT)
            assert any("Ctrl-C again" in line for line in process.stdout)
            process.send_signal(signal.SIGINT)
            remaining_output, errors = process.communicate(timeout=20)
    assert remaining_output.endswith("Stopped.\n")
    assert "Traceback" not in errors
