"""A test client that repeats requests after temporary failures and waits until jobs complete."""

import time
from collections import Counter

import httpx2

_TIMEOUT_SECONDS = 900


class Caller:
    """A client for a tests.harness.Server. It repeats a request after a temporary error.

    `temporary_codes` are the codes of these errors, or prefixes of the codes. `troubles` counts
    the errors by code.
    """

    def __init__(self, server, *temporary_codes):
        self._server = server
        self._temporary_codes = temporary_codes
        self._deadline = time.monotonic() + _TIMEOUT_SECONDS
        self.troubles = Counter()

    def transcribe(self, recording, **fields):
        """Send a recording to /api/transcribe, repeatedly if necessary. Return its transcript."""
        while time.monotonic() < self._deadline:
            response = self._server.send(recording, **fields)
            if response.status_code == 200:
                return response.json()["transcript"]
            if response.status_code == 202:
                return self.wait_for_transcript(response.json()["id"])
            self._record_temporary(response.json())
        raise AssertionError(f"Not completed after {_TIMEOUT_SECONDS} seconds")

    def transcribe_upload(self, recording, **options):
        """Upload a recording to the bucket, wait for its job, and return the transcript."""
        while time.monotonic() < self._deadline:
            created = self._server.request_upload(len(recording), **options)
            if created.status_code == 201:
                self._server.post(created.json()["upload"], recording)
                return self.wait_for_transcript(created.json()["id"])
            self._record_temporary(created.json())
        raise AssertionError(f"Not completed after {_TIMEOUT_SECONDS} seconds")

    def wait_for_transcript(self, job_id):
        """Poll a job until it completes, and retry it if it fails. Return the transcript."""
        while time.monotonic() < self._deadline:
            job = self._server.job(job_id)
            match job["status"]:
                case "completed":
                    return job["transcript"]
                case "failed":
                    self._record_temporary(job["error"])
                    self._server.http.post(f"/api/transcriptions/{job_id}/retry")
                case 503:  # the status code of an RFC 9457 problem, not a job status
                    self._record_temporary(job)
            time.sleep(0.1)
        raise AssertionError(f"Not completed after {_TIMEOUT_SECONDS} seconds")

    def _record_temporary(self, problem):
        assert problem["code"].startswith(self._temporary_codes), problem
        self.troubles[problem["code"]] += 1


class Remote:
    """A server that a Caller uses over HTTP. Requests are repeated after connection errors."""

    def __init__(self, url):
        self.http = httpx2.Client(
            base_url=url,
            timeout=60,
            trust_env=False,
            transport=_RetryingTransport(httpx2.HTTPTransport(limits=_NO_POOL)),
        )

    def send(self, recording, **fields):
        return self.http.post("/api/transcribe", files={"file": recording}, data=fields)

    def request_upload(self, size, **options):
        return self.http.post("/api/uploads", json={"filename": "a.wav", "size": size, **options})

    def post(self, form, recording):
        self.http.post(
            form["url"], data=form["fields"], files={"file": recording}
        ).raise_for_status()

    def job(self, job_id):
        return self.http.get(f"/api/transcriptions/{job_id}").json()


_NO_POOL = httpx2.Limits(max_connections=None, max_keepalive_connections=0)


class _RetryingTransport(httpx2.BaseTransport):
    """Repeat a request until a response arrives, because the server may be restarting."""

    def __init__(self, transport):
        self._transport = transport

    def handle_request(self, request):
        request.read()
        while True:
            try:
                response = self._transport.handle_request(request)
                response.read()
            except httpx2.TransportError:
                time.sleep(0.2)
            else:
                return response
