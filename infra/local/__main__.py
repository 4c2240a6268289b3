"""Run Steno's app and worker, an AWS emulator and an offline engine, for `make run`.

The app and the worker run in this process. The app listens on PORT (default: 8000). The emulator
and the engine are child processes that listen on free ports. They stop when this process stops. The
engine runs only if no API key is configured, and the emulator only if no bucket is configured.
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
from infra.local.worker import local_worker

_SHUTDOWN_SECONDS = 30  # time for requests to finish after Ctrl-C
# The engine transcribes one recording at a time. With more parallel requests, some would time out.
_ENGINE_CALLS = "4"
_SAMPLE_SECONDS = 60
STATE = Path(".steno").resolve()
SAMPLE = Path(get_assets_path()) / "beckett.wav"  # ten seconds of speech
_COST = "the sample below costs a fraction of a cent"
# What the user should do if the transcription of the sample fails with one of these error codes.
_REMEDIES = {
    "upstream_credentials": "Set OPENAI_API_KEY to a valid key and restart.",
    "upstream_model": "Set WHISPER_MODEL to a model that your key can use and restart.",
    "upstream_quota": "Add credit to the OpenAI account of your key, or raise its limit.",
}
_OTHER_REMEDY = "Check OPENAI_BASE_URL, the network and the errors above."


def main() -> None:
    """Run Steno until SIGINT or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A process that a shell starts in the background ignores SIGINT by default.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    configured = {**dotenv_values(".env"), **os.environ}
    with (
        _exclusive_use(STATE),
        _listen(configured.get("PORT") or "8000") as listener,
        _upstream(configured) as upstream,
        _temp_files_in(STATE / "tmp"),
        _jobs(configured) as aws,
    ):
        settings = read_settings()
        logs.configure(on_lambda=False)
        services = build_services(settings)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = LocalServer(services, address)
        print(f"Steno   {address}  (recorder page; API reference: {address}/docs)")
        print(f"Speech  {upstream}, model {settings.whisper_model}")
        print(f"Jobs    {aws}")
        print(f"Access  {_access(settings)}", flush=True)
        worker_services = build_services(settings, jobs=Jobs(settings, limits=WORKER_LIMITS))
        # After a KeyboardInterrupt, uvicorn shuts down and then raises the exception again.
        with local_worker(worker_services), suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
            logging.disable()  # hide the errors of interrupted requests
    print("Stopped.")


class LocalServer(uvicorn.Server):
    """The app's web server. After it has started, it transcribes a sample through its own API.

    If the transcription fails, the server prints a warning with a remedy and keeps running.
    """

    def __init__(self, services: Services, address: str) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(services.settings, services),
                log_config=_log_config(),
                lifespan="off",
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
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
                f"Finishing open requests (at most {_SHUTDOWN_SECONDS} s)."
                " Press Ctrl-C again to stop now.",
                flush=True,
            )
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop the server. On the second Ctrl-C, also close all connections.

        In Python 3.12 and later, the server would otherwise wait until its clients close their
        connections.
        """
        super().handle_exit(sig, frame)
        if self.force_exit:
            for connection in list(self.server_state.connections):
                connection.transport.abort()

    def _show_sample(self) -> None:
        url = f"{self._address}/api/transcribe"
        header = ""
        if self._settings.auth == "token":
            header = ' -H "Authorization: Bearer $ACCESS_TOKEN"'
        sample = _unique_sample()
        if len(sample) > self._settings.max_audio_bytes:
            print("Sample  skipped: it is larger than MAX_AUDIO_BYTES")
        else:
            try:
                self._transcribe(sample)
            except _NoBudgetError as error:
                print(f"Sample  skipped: {error}")
            except (httpx2.HTTPError, StenoError, _SampleError) as error:
                remedy = _REMEDIES.get(getattr(error, "code", ""), _OTHER_REMEDY)
                print(f"WARNING The sample could not be transcribed. {error}")
                print(f"        {remedy} Steno keeps running.")
        print(f'Try it  curl{header} -F "file=@{_relative_to_cwd(SAMPLE)}" {url}', flush=True)

    def _transcribe(self, sample: bytes) -> None:
        headers = {}
        if self._settings.auth == "token":
            headers = {"Authorization": f"Bearer {self._token.get()}"}
        with httpx2.Client(
            base_url=self._address, headers=headers, timeout=60, trust_env=False
        ) as http:
            for method, send in (("in one request", _send_direct), ("as a job", _send_as_job)):
                started = time.monotonic()
                text = send(http, sample)
                seconds = time.monotonic() - started
                print(f"Sample  {SAMPLE.name}, 10 s of speech, {method}, took {seconds:.1f} s:")
                print(f"        {text}", flush=True)


class _SampleError(Exception):
    def __init__(self, detail: str, code: str = "") -> None:
        super().__init__(detail)
        self.code = code


class _NoBudgetError(_SampleError):
    pass


def _unique_sample() -> bytes:
    """Return the sample with an additional RIFF chunk of random bytes, which decoders skip.

    The random bytes ensure that the request is sent to the upstream. If the ledger contained the
    result, a wrong API key would not be noticed.
    """
    chunk = b"JUNK" + (16).to_bytes(4, "little") + os.urandom(16)
    content = SAMPLE.read_bytes() + chunk
    return content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:]


def _send_direct(http: httpx2.Client, sample: bytes) -> str:
    return str(_body(http.post("/api/transcribe", files={"file": sample}))["transcript"])


def _send_as_job(http: httpx2.Client, sample: bytes) -> str:
    request = {"filename": SAMPLE.name, "content_type": "audio/wav", "size": len(sample)}
    created = _body(http.post("/api/uploads", json=request))
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
    raise _SampleError(f"The job did not finish within {_SAMPLE_SECONDS} seconds.")


def _body(response: httpx2.Response) -> Any:
    if response.is_success:
        return response.json()
    raise _failure(response.json())


def _failure(error: dict[str, str]) -> Exception:
    kind = _NoBudgetError if error["code"] == "budget_exhausted" else _SampleError
    return kind(error["detail"], error["code"])


def _listen(port: str) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", int(port)))
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"PORT={port} cannot be used ({error}). Use another port: PORT=8001 make run")


@contextmanager
def _exclusive_use(state: Path) -> Iterator[None]:
    """Lock the folder `state`, because two servers must not share jobs and temporary files."""
    state.mkdir(exist_ok=True)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(
                "Steno is already running in this folder. Stop it first (Ctrl-C in its terminal)."
            )
        yield


@contextmanager
def _upstream(configured: Mapping[str, str | None]) -> Iterator[str]:
    """Set the environment variables for the upstream, and yield a description of the upstream.

    If neither an API key nor a URL is configured, the offline engine runs until the block ends.
    """
    url = configured.get("OPENAI_BASE_URL")
    if configured.get("UPSTREAMS"):
        yield f"the servers in UPSTREAMS ({_COST})"
        return
    if configured.get("OPENAI_API_KEY") or configured.get("OPENAI_SECRET_ARN"):
        yield f"{url or 'OpenAI'} with your API key ({_COST})"
        return
    if url:
        os.environ["OPENAI_API_KEY"] = "none"
        yield f"{url} without an API key"
        return
    engine = [sys.executable, "-m", "infra.local.engine", "--port", "0", "--until-stdin-closes"]
    # Use a new session, so that Ctrl-C does not stop the engine while the app finishes requests.
    with subprocess.Popen(
        engine, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdin
        assert process.stdout
        url = process.stdout.readline().strip()
        if not url:
            sys.exit("The offline engine did not start. See its output above.")
        # Requests to this machine must not go through a configured proxy.
        os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "offline", "NO_PROXY": "127.0.0.1"}
        if not configured.get("MAX_CONCURRENT_CALLS"):
            os.environ["MAX_CONCURRENT_CALLS"] = _ENGINE_CALLS
        yield f"offline engine at {url} (set OPENAI_API_KEY to use OpenAI)"
        process.stdin.close()


@contextmanager
def _jobs(configured: Mapping[str, str | None]) -> Iterator[str]:
    """Set the environment variables for job storage, and yield a description of the storage.

    If no bucket is configured, the AWS emulator runs until the block ends.
    """
    if bucket := configured.get("BUCKET_NAME"):
        yield f"S3 bucket {bucket}"
        return
    with local_aws(STATE, ("*",)) as environment:
        os.environ |= environment
        url, folder = environment["AWS_ENDPOINT_URL"], _relative_to_cwd(STATE)
        yield f"AWS emulator at {url}, data in {folder}"


@contextmanager
def _temp_files_in(folder: Path) -> Iterator[None]:
    """Use `folder` for temporary files, and delete it when the block ends.

    The folder is also emptied at the start, because a killed process does not delete its files.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _access(settings: Settings) -> str:
    if settings.auth == "token":
        return "token required: `Authorization: Bearer ...`"
    origins = ", ".join(settings.allowed_origins)
    return f"programs on this machine, pages on {origins} (set ACCESS_TOKEN to require a token)"


def _log_config() -> dict[str, object]:
    """Return a configuration for uvicorn that logs neither startups nor cancelled requests."""
    config = deepcopy(LOGGING_CONFIG)
    config["loggers"]["uvicorn.error"]["level"] = "WARNING"
    config["filters"] = {"no_cancellations": {"()": _NoCancellations}}
    config["handlers"]["default"]["filters"] = ["no_cancellations"]
    return config


class _NoCancellations(logging.Filter):
    """Drops the log records of requests that Ctrl-C cancelled."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def _relative_to_cwd(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    main()
