"""Requests of OpenAI's SDKs for Node.js and Python, and servers that control their retries."""

import anyio.to_thread

from tests.node import node_program, run_node_program

STREAM = {"model": "gpt-4o-transcribe", "stream": True}
JOB = {"model": "gpt-transcribe", "response_format": "verbose_json"}
_PROGRAM = "openai_client.mjs"


def _argument(url, path, requests, settings):
    client = {"baseURL": f"{url}/v1", "apiKey": "anything", "maxRetries": 0, **settings}
    return {"client": client, "path": str(path), "requests": requests}


def node_client(npm, url, path, *requests, **settings):
    """Send requests with OpenAI's SDK for Node.js. Yield an iterator over the lines it prints."""
    return node_program(npm, _PROGRAM, _argument(url, path, requests, settings))


def run_node_client(npm, url, path, *requests, **settings):
    """Send requests with OpenAI's SDK for Node.js. Return the lines that it prints."""
    return run_node_program(npm, _PROGRAM, _argument(url, path, requests, settings))


def text_of(events):
    """Return the joined deltas of a stream."""
    return "".join(event["delta"] for event in events if event["type"].endswith(".delta"))


class WorkBetweenRequests:
    """An ASGI application that calls `work` before it handles the second request."""

    def __init__(self, application, work):
        self.requests = 0
        self._application = application
        self._work = work

    async def __call__(self, scope, receive, send):
        self.requests += 1
        if self.requests == 2:
            await anyio.to_thread.run_sync(self._work)
        await self._application(scope, receive, send)
