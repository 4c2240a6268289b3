"""Steno on this machine, one process tree: the app here, and the offline engine below it unless there is a key.

PORT (default 8000) is the only fixed address. The engine ends when this process does, however that ends.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2
import uvicorn
from dotenv import dotenv_values
from moonshine_voice.utils import get_assets_path
from uvicorn.config import LOGGING_CONFIG

from handler import logs
from handler.aws.clients import WORKER_LIMITS
from handler.errors import StenoError
from handler.jobs.store import Jobs
from handler.services import Services, build_services
from handler.settings import Settings, read_settings
from handler.web.app import create_app
from infra.local.aws import local_aws
from infra.local.worker import working

_LAST_SECONDS = 30  # what is left of a request's life after Ctrl-C
_ENGINE_CALLS = (
    "4"  # it hears one recording at a time: more would only wait there, against their deadline
)
_SAMPLE_SECONDS = 60
STATE = Path(".steno").resolve()
SAMPLE = Path(get_assets_path()) / "beckett.wav"  # ten seconds of speech
_COST = "the sample below costs a fraction of a cent"
# By the code of the error that the sample met.
_REMEDIES = {
    "upstream_credentials": "Set OPENAI_API_KEY to a key that OpenAI accepts, and start again.",
    "upstream_model": "Set WHISPER_MODEL to a model that the key may use, and start again.",
    "upstream_quota": "Add credit to the account of the key, or raise its limit.",
}
_OTHER_REMEDY = "Check OPENAI_BASE_URL and the network, and look for errors above."


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` would have it ignored
    configured = {**dotenv_values(".env"), **os.environ}
    listener = _listen(configured.get("PORT") or "8000")
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with (
        _alone(STATE),
        _upstream(configured) as upstream,
        _temp_files_in(STATE / "tmp"),
        _jobs(configured) as aws,
    ):
        settings = read_settings()
        logs.configure(on_lambda=False)
        services = build_services(settings)
        server = LocalServer(services, address)
        print(f"Steno   {address}  (a page to record on; for programs: {address}/docs)")
        print(f"Speech  {upstream}, as {settings.whisper_model}")
        print(f"Jobs    {aws}")
        print(f"Access  {_access(settings)}", flush=True)
        work = build_services(settings, jobs=Jobs(settings, limits=WORKER_LIMITS))
        with working(work), suppress(KeyboardInterrupt):  # uvicorn's way to say why it has ended
            server.run(sockets=[listener])
            logging.disable()  # of what is cut off here, and of the queues that go with us
    print("Stopped.")


class LocalServer(uvicorn.Server):
    """The app's server, which transcribes a sample through its own routes as soon as it is up.

    If that fails, it prints a warning with the remedy, and keeps serving.
    """

    def __init__(self, services: Services, address: str) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(services.settings, services),
                log_config=_quiet_start(),
                lifespan="off",
                timeout_graceful_shutdown=_LAST_SECONDS,
            )
        )
        self._address = address
        self._settings = services.settings
        self._token = services.access_token

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        threading.Thread(target=self._show_sample, daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.tasks:
            print(
                f"Finishing what has begun, {_LAST_SECONDS} s at most; Ctrl-C again ends it now.",
                flush=True,
            )
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """At the second Ctrl-C every connection is closed: from Python 3.12 on a server waits for its last one."""
        super().handle_exit(sig, frame)
        if self.force_exit:
            for connection in list(self.server_state.connections):
                connection.transport.abort()

    def _show_sample(self) -> None:
        url = f"{self._address}/api/transcribe"
        header = (
            ' -H "Authorization: Bearer $ACCESS_TOKEN"' if self._settings.auth == "token" else ""
        )
        sample = _sample()
        if len(sample) > self._settings.max_audio_bytes:
            print("Sample  none: it is larger than MAX_AUDIO_BYTES")
        else:
            try:
                self._send(sample)
            except _NoBudgetError as error:
                print(f"Sample  none: {error}")
            except (httpx2.HTTPError, StenoError, _SampleError) as error:
                remedy = _REMEDIES.get(getattr(error, "code", ""), _OTHER_REMEDY)
                print(f"WARNING The sample could not be transcribed. {error}")
                print(f"        {remedy} Steno keeps running.")
        print(f'Try it  curl{header} -F "file=@{_short(SAMPLE)}" {url}', flush=True)

    def _send(self, sample: bytes) -> None:
        headers = (
            {"Authorization": f"Bearer {self._token.get()}"}
            if self._settings.auth == "token"
            else {}
        )
        with httpx2.Client(
            base_url=self._address, headers=headers, timeout=60, trust_env=False
        ) as http:
            for way, send in (("in one request", _direct), ("by upload, as a job", _as_a_job)):
                began = time.monotonic()
                words = send(http, sample)
                print(
                    f"Sample  {SAMPLE.name}, 10 s of speech, {way}, in {time.monotonic() - began:.1f} s:"
                )
                print(f"        {words}", flush=True)


class _SampleError(Exception):
    def __init__(self, detail: str, code: str = "") -> None:
        super().__init__(detail)
        self.code = code


class _NoBudgetError(_SampleError):
    pass


def _sample() -> bytes:
    """Return the sample with a chunk that is new at each start, and that decoders skip.

    The ledger has no answer for these bytes, so a request reaches the upstream: an answer from
    the ledger would show words although the key is wrong.
    """
    chunk = b"JUNK" + (16).to_bytes(4, "little") + os.urandom(16)
    content = SAMPLE.read_bytes() + chunk
    return content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:]


def _direct(http: httpx2.Client, sample: bytes) -> str:
    return str(_body(http.post("/api/transcribe", files={"file": sample}))["transcript"])


def _as_a_job(http: httpx2.Client, sample: bytes) -> str:
    wanted = {"filename": SAMPLE.name, "content_type": "audio/wav", "size": len(sample)}
    created = _body(http.post("/api/uploads", json=wanted))
    upload = created["upload"]
    httpx2.post(
        upload["url"], data=upload["fields"], files={"file": sample}, trust_env=False
    ).raise_for_status()
    deadline = time.monotonic() + _SAMPLE_SECONDS
    while time.monotonic() < deadline:
        job = _body(http.get(f"/api/transcriptions/{created['id']}"))
        if job["status"] == "completed":
            return str(job["transcript"])
        if job["status"] == "failed":
            raise _failure(job["error"])
        time.sleep(0.2)
    raise _SampleError(f"The job did not end within {_SAMPLE_SECONDS} seconds.")


def _body(answer: httpx2.Response) -> Any:
    if answer.is_success:
        return answer.json()
    raise _failure(answer.json())


def _failure(error: dict[str, str]) -> Exception:
    kind = _NoBudgetError if error["code"] == "budget_exhausted" else _SampleError
    return kind(error["detail"], error["code"])


def _listen(port: str) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", int(port)))
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"PORT={port} cannot be used ({error}). Choose another: PORT=8001 make run")


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """One at a time: jobs and temporary files are in one folder."""
    state.mkdir(exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(
                "Steno is running from this folder already; end that first (Ctrl-C where it runs)."
            )
        yield


@contextmanager
def _upstream(configured: Mapping[str, str | None]) -> Iterator[str]:
    """What turns speech into text, named for the reader; the environment points the app at it."""
    url = configured.get("OPENAI_BASE_URL")
    if configured.get("OPENAI_API_KEY") or configured.get("OPENAI_SECRET_ARN"):
        yield f"by {url or 'OpenAI'} with your key ({_COST})"
        return
    if url:
        os.environ["OPENAI_API_KEY"] = "none"
        yield f"by {url}, without a key"
        return
    engine = [sys.executable, "-m", "infra.local.engine", "--port", "0", "--until-stdin-closes"]
    # In a session of its own, so that Ctrl-C reaches it only after the app has answered what it had begun.
    with subprocess.Popen(
        engine, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin
        assert process.stdout
        url = process.stdout.readline().strip()
        if not url:
            sys.exit("The offline engine did not start; what it said is above.")
        # The engine is on this machine, where no proxy leads.
        os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "offline", "NO_PROXY": "127.0.0.1"}
        if not configured.get("MAX_CONCURRENT_CALLS"):
            os.environ["MAX_CONCURRENT_CALLS"] = _ENGINE_CALLS
        yield f"by the offline engine at {url} (set OPENAI_API_KEY to use OpenAI)"
        process.stdin.close()


@contextmanager
def _jobs(configured: Mapping[str, str | None]) -> Iterator[str]:
    """Where large recordings go, named for the reader: AWS where a bucket is named, else a local one that lives on."""
    if bucket := configured.get("BUCKET_NAME"):
        yield f"in the bucket {bucket}"
        return
    with local_aws(STATE, ("*",)) as environment:
        os.environ |= environment
        yield f"in a local AWS at {environment['AWS_ENDPOINT_URL']}, kept in {_short(STATE)}"


@contextmanager
def _temp_files_in(folder: Path) -> Iterator[None]:
    """Everything temporary in one place, which is emptied at the end, and at the beginning where the end was a kill."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _access(settings: Settings) -> str:
    if settings.auth == "token":
        return "with the token only, as `Authorization: Bearer ...`"
    pages = ", ".join(settings.allowed_origins)
    return f"open to this machine's programs and the pages of {pages} (ACCESS_TOKEN=... asks for a token)"


def _quiet_start() -> dict[str, object]:
    """Uvicorn's logging without its start-up lines, so that the first lines are those that help."""
    config = deepcopy(LOGGING_CONFIG)
    config["loggers"]["uvicorn.error"]["level"] = "WARNING"
    config["filters"] = {"cancelled": {"()": _NoCancellations}}
    config["handlers"]["default"]["filters"] = ["cancelled"]
    return config


class _NoCancellations(logging.Filter):
    """A request that Ctrl-C cut off is no error of the app."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
