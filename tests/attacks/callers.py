"""What a careful caller does: sends again what failed for no reason of its own, and asks until a job has ended."""

import time
from collections import Counter

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
