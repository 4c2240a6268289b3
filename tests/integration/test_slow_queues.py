"""Test that a recording is converted and transcribed within one request despite slow queues."""

import time
from contextlib import ExitStack

import anyio
import boto3
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from infra.local.aws import QUEUES, VISIBILITY_SECONDS
from tests.attacks.processes import api, worker
from tests.conftest import serving
from tests.samples import recording

DELAY_SECONDS = 2
UPSTREAM_SECONDS = 2
GATEWAY_SECONDS = 29  # the timeout of API Gateway


@pytest.fixture
def slow_queues(aws):
    """Delay each message by DELAY_SECONDS. Return the settings with the queue URLs."""
    sqs = boto3.client("sqs")

    def delay(seconds):
        for name in QUEUES:
            sqs.set_queue_attributes(
                QueueUrl=aws[name.lower()], Attributes={"DelaySeconds": str(seconds)}
            )

    delay(DELAY_SECONDS)
    yield aws
    delay(0)


async def accept_only_flac(request):
    async with request.form() as form:
        name = form["file"].filename
    await anyio.sleep(UPSTREAM_SECONDS)
    if name.endswith(".flac"):
        return JSONResponse({"text": "Ever tried.", "usage": {"type": "duration", "seconds": 3}})
    return JSONResponse(
        {"error": {"message": "The audio file could not be decoded.", "param": "file"}}, 400
    )


def test_a_recording_of_safari_is_transcribed_in_the_same_request(slow_queues, tmp_path):
    upstream = Starlette(
        routes=[Route("/v1/audio/transcriptions", accept_only_flac, methods=["POST"])]
    )
    with ExitStack() as stack:
        environment = {
            **{name.upper(): value for name, value in slow_queues.items()},
            "OPENAI_API_KEY": "any",
            "OPENAI_BASE_URL": f"{stack.enter_context(serving(upstream))}/v1",
        }
        _, url = stack.enter_context(api(tmp_path, **environment))
        stack.enter_context(worker(tmp_path, VISIBILITY_SECONDS, **environment))
        started = time.monotonic()
        files = {"file": ("recording.mp4", recording("fragmented mp4"), "audio/mp4")}
        response = httpx2.post(f"{url}/api/transcribe", files=files, timeout=GATEWAY_SECONDS)
        seconds = time.monotonic() - started
    assert response.status_code == 200, response.text
    assert response.json() == {"transcript": "Ever tried."}
    # The recording went through both queues.
    assert seconds >= 2 * DELAY_SECONDS + 2 * UPSTREAM_SECONDS
