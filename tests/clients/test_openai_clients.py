"""Transcribe a recording with programs and libraries that use OpenAI's API."""

import json
import subprocess
from contextlib import contextmanager

import pytest

from infra.local.aws import free_port, wait_for_port
from tests.clients.conftest import install, node, python_environment, python_since
from tests.conftest import ROOT, serving
from tests.samples import ASSETS

BECKETT = ASSETS / "beckett.wav"
WORDS = "Ever tried. Ever failed."
VERCEL = """
import { readFileSync } from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { transcribe } from "ai";

const [baseURL, path, model, options] = process.argv.slice(2);
const openai = createOpenAI({ baseURL, apiKey: "anything" });
const { text, segments, language, durationInSeconds, warnings } = await transcribe({
  model: openai.transcription(model),
  audio: readFileSync(path),
  providerOptions: { openai: JSON.parse(options) },
});
console.log(JSON.stringify({ text, segments, language, durationInSeconds, warnings }));
"""
LITELLM = """
import json, sys
import litellm

url, path, options = sys.argv[1:]
with open(path, "rb") as recording:
    response = litellm.transcription(
        file=recording, api_base=url, api_key="anything", **json.loads(options)
    )
print(json.dumps({"text": response.text, "words": response.get("words")}))
"""
LANGCHAIN = """
import json, sys
import imageio_ffmpeg
from langchain_community.document_loaders.parsers.audio import OpenAIWhisperParser
from langchain_core.documents.base import Blob
from pydub import AudioSegment

url, path = sys.argv[1:]
AudioSegment.converter = imageio_ffmpeg.get_ffmpeg_exe()
parser = OpenAIWhisperParser("anything", base_url=url, model="gpt-transcribe", language="en")
documents = list(parser.lazy_parse(Blob.from_path(path)))
print(json.dumps([document.page_content for document in documents]))
"""
# Home Assistant sends these events.
WYOMING = """
import asyncio, json, sys, wave
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioStart, AudioStop, wav_to_chunks
from wyoming.client import AsyncClient
from wyoming.info import Describe, Info

async def main(uri, path, model):
    async with AsyncClient.from_uri(uri) as client:
        await client.write_event(Describe().event())
        info = Info.from_event(await client.read_event())
        await client.write_event(Transcribe(name=model, language="en").event())
        with wave.open(path) as recording:
            for event in wav_to_chunks(recording, 1024, start_event=True, stop_event=True):
                await client.write_event(event.event())
        chunks = []
        while not Transcript.is_type((event := await client.read_event()).type):
            if TranscriptChunk.is_type(event.type):
                chunks.append(TranscriptChunk.from_event(event).text)
        models = [model.name for program in info.asr for model in program.models]
        text = Transcript.from_event(event).text
        print(json.dumps({"models": models, "chunks": chunks, "text": text}))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def base_url(server, engine):
    """Serve Steno with a worker. Return the base URL of its OpenAI-compatible API."""
    with serving(server(openai_base_url=engine.url).app) as url:
        yield f"{url}/v1"


def packages(name):
    """Return pip's arguments for the packages of a client."""
    return "-r", ROOT / "tests" / "clients" / "python" / f"{name}.txt"


def run(python, program, *arguments, **environment):
    """Run a Python program that prints JSON. Return its last line of output."""
    done = subprocess.run(
        [python, "-c", program, *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def vercel(once):
    """Return a folder with Vercel's AI SDK and a program that uses it."""

    def make(folder):
        install(ROOT / "tests" / "clients" / "vercel", folder)
        (folder / "program.mjs").write_text(VERCEL)

    return once("vercel", make)


@pytest.mark.parametrize("model", ["whisper-1", "gpt-transcribe"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"responseFormat": "verbose_json"},
        {"responseFormat": "verbose_json", "timestampGranularities": ["word"]},
    ],
    ids=["default", "segments", "words"],
)
def test_vercels_ai_sdk_transcribes(vercel, base_url, model, options):
    output = node("program.mjs", base_url, BECKETT, model, json.dumps(options), folder=vercel)
    result = json.loads(output)
    assert result["text"].startswith(WORDS)
    assert result["durationInSeconds"] == pytest.approx(10, abs=0.1)
    assert result["language"] == "en"
    assert result["warnings"] == []
    if options:
        spoken = " ".join(segment["text"] for segment in result["segments"])
        assert spoken == result["text"]
        is_timed_by_word = "timestampGranularities" in options
        assert (len(result["segments"]) == len(spoken.split())) == is_timed_by_word


def test_litellm_transcribes(base_url, tmp_path):
    """LiteLLM itself rejects `verbose_json` for gpt-transcribe."""
    python = python_environment(tmp_path / "venv", *packages("litellm"))
    words = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
    for options in ({"model": "openai/gpt-transcribe"}, {"model": "openai/whisper-1", **words}):
        # By default, LiteLLM downloads the prices of models.
        settings = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        result = run(python, LITELLM, base_url, BECKETT, json.dumps(options), **settings)
        assert result["text"].startswith(WORDS)
    assert " ".join(word["word"] for word in result["words"]) == result["text"]


def test_langchain_transcribes(base_url, tmp_path):
    python = python_environment(tmp_path / "venv", *packages("langchain"))
    (text,) = run(python, LANGCHAIN, base_url, BECKETT)
    assert text.startswith(WORDS)


@contextmanager
def wyoming_proxy(python, base_url):
    """Run wyoming-openai as a process. Yield the URI of its Wyoming server."""
    port = free_port()
    uri = f"tcp://127.0.0.1:{port}"
    command = [python, "-m", "wyoming_openai", "--uri", uri, "--log-level", "ERROR"]
    upstream = ["--stt-openai-url", base_url, "--stt-openai-key", "anything"]
    models = ["--stt-models", "gpt-transcribe", "--stt-streaming-models", "gpt-4o-transcribe"]
    with subprocess.Popen([*command, *upstream, *models]) as process:
        try:
            wait_for_port(port, process, "the output of wyoming-openai")
            yield uri
        finally:
            process.terminate()


def test_wyoming_openai_transcribes_for_home_assistant(base_url, tmp_path):
    python = python_environment(tmp_path / "venv", *packages("wyoming"), python=python_since(12))
    with wyoming_proxy(python, base_url) as uri:
        for model in ("gpt-transcribe", "gpt-4o-transcribe"):
            result = run(python, WYOMING, uri, BECKETT, model)
            assert model in result["models"]
            assert result["text"].startswith(WORDS)
            is_streaming = model == "gpt-4o-transcribe"
            assert "".join(result["chunks"]) == (result["text"] if is_streaming else "")
