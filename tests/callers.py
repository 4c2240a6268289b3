"""What a careful caller does: sends again what failed for no reason of its own, and asks until a job has ended."""

import time
from collections import Counter

import httpx2

_PATIENCE_SECONDS = 900


class Caller:
    """Of a tests.place.Server; `forgives` are the codes, or their beginnings, that it takes for passing trouble."""

    def __init__(self, server, *forgives):
        self._server = server
        self._forgives = forgives
        self._until = time.monotonic() + _PATIENCE_SECONDS
        self.troubles = Counter()

    def words_of(self, recording, **fields):
        """By one request, as often as it takes."""
        while time.monotonic() < self._until:
            answer = self._server.send(recording, **fields)
            if answer.status_code == 200:
                return answer.json()["transcript"]
            if answer.status_code == 202:
                return self.words_of_job(answer.json()["id"])
            self._forgive(answer.json())
        raise AssertionError("it never ends")

    def words_of_upload(self, recording, **options):
        while time.monotonic() < self._until:
            asked = self._server.ask(len(recording), **options)
            if asked.status_code == 201:
                self._server.post(asked.json()["upload"], recording)
                return self.words_of_job(asked.json()["id"])
            self._forgive(asked.json())
        raise AssertionError("it never ends")

    def words_of_job(self, identity):
        while time.monotonic() < self._until:
            job = self._server.job(identity)
            match job["status"]:
                case "completed":
                    return job["transcript"]
                case "failed":
                    self._forgive(job["error"])
                    self._server.http.post(f"/api/transcriptions/{identity}/retry")
                case 503:  # a problem's own status
                    self._forgive(job)
            time.sleep(0.1)
        raise AssertionError("it never ends")

    def _forgive(self, problem):
        assert problem["code"].startswith(self._forgives), problem
        self.troubles[problem["code"]] += 1


class Remote:
    """A server over HTTP, for a Caller; what breaks on the way is sent again."""

    def __init__(self, url):
        self.http = httpx2.Client(
            base_url=url,
            timeout=60,
            trust_env=False,
            transport=_Again(httpx2.HTTPTransport(limits=_NO_POOL)),
        )

    def send(self, recording, **fields):
        return self.http.post("/api/transcribe", files={"file": recording}, data=fields)

    def ask(self, size, **options):
        return self.http.post("/api/uploads", json={"filename": "a.wav", "size": size, **options})

    def post(self, form, recording):
        self.http.post(
            form["url"], data=form["fields"], files={"file": recording}
        ).raise_for_status()

    def job(self, identity):
        return self.http.get(f"/api/transcriptions/{identity}").json()


_NO_POOL = httpx2.Limits(max_connections=None, max_keepalive_connections=0)


class _Again(httpx2.BaseTransport):
    """Makes a request again until there is an answer: whoever is called may be dead, and will be there again."""

    def __init__(self, transport):
        self._transport = transport

    def handle_request(self, request):
        request.read()
        while True:
            try:
                answer = self._transport.handle_request(request)
                answer.read()
            except httpx2.TransportError:
                time.sleep(0.2)
            else:
                return answer
