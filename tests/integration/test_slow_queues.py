"""A recording that has to be repaired is answered in its request though each queue delivers late."""

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

HOP_SECONDS = 2
UPSTREAM_SECONDS = 2
GATEWAY_SECONDS = 29  # API Gateway's own limit


@pytest.fixture
def slow_queues(aws):
    """Each message is delivered after HOP_SECONDS. The settings that name the queues."""
    sqs = boto3.client("sqs")

    def delay(seconds):
        for name in QUEUES:
            sqs.set_queue_attributes(
                QueueUrl=aws[name.lower()], Attributes={"DelaySeconds": str(seconds)}
            )

    delay(HOP_SECONDS)
    yield aws
    delay(0)


async def refuse_all_but_flac(request):
    async with request.form() as form:
        name = form["file"].filename
    await anyio.sleep(UPSTREAM_SECONDS)
    if name.endswith(".flac"):
        return JSONResponse({"text": "Ever tried.", "usage": {"type": "duration", "seconds": 3}})
    return JSONResponse(
        {"error": {"message": "The audio file could not be decoded.", "param": "file"}}, 400
    )


def test_safaris_recording_is_answered_in_the_same_request(slow_queues, tmp_path):
    service = Starlette(
        routes=[Route("/v1/audio/transcriptions", refuse_all_but_flac, methods=["POST"])]
    )
    with ExitStack() as stack:
        given = {
            **{name.upper(): value for name, value in slow_queues.items()},
            "OPENAI_API_KEY": "any",
            "OPENAI_BASE_URL": f"{stack.enter_context(serving(service))}/v1",
        }
        _, url = stack.enter_context(api(tmp_path, **given))
        stack.enter_context(worker(tmp_path, VISIBILITY_SECONDS, **given))
        began = time.monotonic()
        files = {"file": ("recording.mp4", recording("fragmented mp4"), "audio/mp4")}
        answer = httpx2.post(f"{url}/api/transcribe", files=files, timeout=GATEWAY_SECONDS)
        seconds = time.monotonic() - began
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"transcript": "Ever tried."}
    assert seconds >= 2 * HOP_SECONDS + 2 * UPSTREAM_SECONDS  # nothing went another way
