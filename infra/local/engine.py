"""An offline speech engine that speaks OpenAI's contract, so that the real SDK talks real HTTP to it.

    python -m infra.local.engine --port 9000
    OPENAI_BASE_URL=http://127.0.0.1:9000/v1 OPENAI_API_KEY=offline python -m uvicorn handler.main:app

It hears English, with the model that moonshine-voice carries in its wheel, and keeps OpenAI's gates: the name's
extension first, then the bytes, then the options. For tests and benchmarks it can be told how to answer:
`POST /script` takes a list of `Reply`s for the next transcriptions, `GET /calls` tells what has been sent.
"""

import argparse
import hashlib
import json
import math
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Any

import anyio
import anyio.to_thread
import av
import numpy as np
import pysubs2
import uvicorn
from moonshine_voice import ModelArch
from moonshine_voice.transcriber import Transcriber
from moonshine_voice.utils import get_model_path
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from infra.local.child import end_with_parent

SAMPLE_RATE = 16_000
MAX_BYTES = 25 * 1024 * 1024

# The demuxer for each extension that OpenAI takes: bytes of another kind under it cannot be read, as there.
_DEMUXERS = {
    "flac": "flac",
    "m4a": "mov",
    "mp3": "mp3",
    "mp4": "mov",
    "mpeg": "mp3",
    "mpga": "mp3",
    "ogg": "ogg",
    "wav": "wav",
    "webm": "matroska",
}
_FORMATS = {
    "gpt-transcribe": {"json", "text"},
    "gpt-4o-transcribe": {"json", "text"},
    "gpt-4o-mini-transcribe": {"json", "text"},
    "gpt-4o-mini-transcribe-2025-12-15": {"json", "text"},
    "whisper-1": {"json", "text", "srt", "vtt", "verbose_json"},
    "gpt-4o-transcribe-diarize": {"json", "text", "diarized_json"},
}
_EVERY_FORMAT = {"json", "text", "srt", "vtt", "verbose_json"}


@dataclass(frozen=True)
class Line:
    """One stretch of speech; `start` and `end` in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Heard:
    lines: tuple[Line, ...]
    duration: float

    @property
    def text(self) -> str:
        return " ".join(line.text for line in self.lines)


@dataclass(frozen=True)
class Reply:
    """How the next `times` transcriptions are answered, after `delay` seconds.

    `body` is JSON unless it is a string. `drip` sends it byte by byte, that many seconds apart; `broken` stops
    half-way. With neither a body nor an error status the recording is heard as ever.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    drip: float = 0
    broken: bool = False
    times: int = 1


class Recognizer:
    """The speech model; one recording at a time, as it is not known to be safe in threads."""

    def __init__(self) -> None:
        self._model = Transcriber(str(get_model_path("tiny-en")), ModelArch.TINY)
        self._lock = threading.Lock()
        # Tests send the same recordings under many labels.
        self.hear = lru_cache(maxsize=256)(self._hear)

    def _hear(self, recording: bytes, demuxer: str) -> Heard:
        samples = decode(recording, demuxer)
        duration = len(samples) / SAMPLE_RATE
        # A recording that ends in the middle of a word leaves the model listening, and the next one begins with it.
        heard = np.concatenate([samples, np.zeros(SAMPLE_RATE, np.float32)])
        with self._lock:
            lines = self._model.transcribe_without_streaming(heard.tolist(), SAMPLE_RATE).lines
        return Heard(
            tuple(
                Line(
                    round(line.start_time, 3),
                    round(min(line.start_time + line.duration, duration), 3),
                    line.text,
                )
                for line in lines
            ),
            duration,
        )


def decode(recording: bytes, demuxer: str) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The first audio track as mono samples from -1 to 1; av.FFmpegError where there is none to be read."""
    pieces: list[Any] = []
    with av.open(BytesIO(recording), "r", format=demuxer) as container:
        if not container.streams.audio:
            raise av.InvalidDataError(0, "no audio track")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        for frame in container.decode(audio=0):
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


class RefusedError(Exception):
    """A refusal in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {
            "message": message,
            "type": "invalid_request_error",
            "param": param,
            "code": code,
        }


class Engine:
    """The engine behind HTTP; `delay` seconds are added to every transcription."""

    def __init__(self, delay: float = 0) -> None:
        self._recognizer = Recognizer()
        self._delay = delay
        self._script: deque[Reply] = deque()
        self._calls: list[dict[str, Any]] = []

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/audio/transcriptions", self.transcribe, methods=["POST"]),
                Route("/health", self.health),
                Route("/script", self.script, methods=["POST"]),
                Route("/calls", self.calls, methods=["GET", "DELETE"]),
            ]
        )

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def script(self, request: Request) -> Response:
        self._script.clear()
        for entry in await request.json():
            reply = Reply(**entry)
            self._script.extend([reply] * reply.times)
        return Response(status_code=204)

    async def calls(self, request: Request) -> Response:
        """What has been sent since the last DELETE; `seconds` are those that were billed."""
        calls = list(self._calls)
        if request.method == "DELETE":
            self._calls.clear()
        return JSONResponse(calls)

    async def transcribe(self, request: Request) -> Response:
        reply = self._script.popleft() if self._script else Reply()
        await anyio.sleep(self._delay + reply.delay)
        if reply.body is None and reply.status < 400:
            return await self._heard(request)
        async for _ in request.stream():
            pass
        self._calls.append({"seconds": 0, "status": reply.status})
        return _scripted(reply)

    async def _heard(self, request: Request) -> Response:
        call: dict[str, Any] = {"seconds": 0, "status": 200}
        self._calls.append(call)
        try:
            async with request.form(max_part_size=1024 * 1024) as form:
                recording, demuxer, response_format = await _accepted(form, call)
                heard = await anyio.to_thread.run_sync(self._recognizer.hear, recording, demuxer)
        except (av.FFmpegError, ValueError, IndexError, MemoryError):
            refusal = RefusedError(
                400, "The audio file could not be decoded or its format is not supported.", "file"
            )
        except RefusedError as error:
            refusal = error
        else:
            if heard.duration >= 0.1:
                call["seconds"] = math.ceil(heard.duration)
                return _answer(heard, response_format, call["fields"])
            refusal = RefusedError(
                400,
                "Audio file is too short. Minimum audio length is 0.1 seconds.",
                "file",
                "audio_too_short",
            )
        call["status"] = refusal.status
        return JSONResponse({"error": refusal.error}, refusal.status)


async def _accepted(form: FormData, call: dict[str, Any]) -> tuple[bytes, str, str]:
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise RefusedError(400, "you must provide a file", "file")
    recording = await upload.read()
    fields = {
        name: form.getlist(name) if name.endswith("[]") else form[name]
        for name in form
        if name != "file"
    }
    call |= {
        "filename": upload.filename,
        "content_type": upload.content_type,
        "bytes": len(recording),
        "sha256": hashlib.sha256(recording).hexdigest(),
        "fields": fields,
    }
    if len(recording) > MAX_BYTES:
        raise RefusedError(413, f"Maximum content size limit ({MAX_BYTES}) exceeded")
    demuxer = _DEMUXERS.get((upload.filename or "").rpartition(".")[2])
    if demuxer is None:
        raise RefusedError(
            400,
            f"Unsupported file format. Supported: {sorted(_DEMUXERS)}",
            "file",
            "unsupported_value",
        )
    return recording, demuxer, _response_format(fields)


def _response_format(fields: dict[str, Any]) -> str:
    model, response_format = fields.get("model"), fields.get("response_format", "json")
    if not model:
        raise RefusedError(400, "you must provide a model parameter", "model")
    if response_format not in _FORMATS.get(model, _EVERY_FORMAT):
        raise RefusedError(
            400,
            f"response_format '{response_format}' is not compatible with model '{model}'",
            "response_format",
        )
    if any(set("<>\r\n") & set(keyword) for keyword in fields.get("keywords[]", [])):
        raise RefusedError(400, "keywords must not hold <, > or line breaks", "keywords")
    return str(response_format)


def _answer(heard: Heard, response_format: str, fields: dict[str, Any]) -> Response:
    if response_format in ("text", "srt", "vtt"):
        return PlainTextResponse(
            heard.text + "\n" if response_format == "text" else _subtitles(heard, response_format)
        )
    body: dict[str, Any] = {
        "text": heard.text,
        "usage": {"type": "duration", "seconds": math.ceil(heard.duration)},
    }
    if response_format == "json" and fields["model"] == "gpt-transcribe":
        body["languages"] = [{"code": "en"}]
    if "logprobs" in fields.get("include[]", []):
        body["logprobs"] = [{"token": word, "logprob": -0.1} for word in heard.text.split()]
    if response_format != "json":
        body |= {"task": "transcribe", "language": "english", "duration": heard.duration}
        granularities = fields.get("timestamp_granularities[]") or ["segment"]
        if "segment" in granularities:
            body["segments"] = [
                _segment(number, line, response_format) for number, line in enumerate(heard.lines)
            ]
        if "word" in granularities:
            body["words"] = [word for line in heard.lines for word in _words(line)]
    return JSONResponse(body)


def _words(line: Line) -> list[dict[str, Any]]:
    """The line's words, spread over it: the model knows lines only."""
    words = line.text.split()
    step = (line.end - line.start) / max(len(words), 1)
    return [
        {
            "word": word,
            "start": round(line.start + number * step, 3),
            "end": round(line.start + (number + 1) * step, 3),
        }
        for number, word in enumerate(words)
    ]


def _segment(number: int, line: Line, response_format: str) -> dict[str, Any]:
    if response_format == "diarized_json":
        return {
            "type": "transcript.text.segment",
            "id": f"seg_{number}",
            "speaker": "A",
            **asdict(line),
        }
    confidence = {
        "avg_logprob": -0.2,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.01,
        "temperature": 0.0,
    }
    return {"id": number, "seek": 0, "tokens": [], **asdict(line), **confidence}


def _subtitles(heard: Heard, response_format: str) -> str:
    file = pysubs2.SSAFile()
    for line in heard.lines:
        file.append(pysubs2.SSAEvent(round(line.start * 1000), round(line.end * 1000), line.text))
    return file.to_string(response_format)


def _scripted(reply: Reply) -> Response:
    if not reply.drip and not reply.broken:
        answer = PlainTextResponse if isinstance(reply.body, str) else JSONResponse
        return answer(reply.body, reply.status, headers=reply.headers)
    content = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
    return StreamingResponse(_bit_by_bit(content, reply), reply.status, headers=reply.headers)


async def _bit_by_bit(content: str, reply: Reply) -> AsyncIterator[str]:
    for letter in content[: len(content) // 2] if reply.broken else content:
        await anyio.sleep(reply.drip)
        yield letter
    if reply.broken:
        raise ConnectionAbortedError("told to break")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.engine", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free one (default: 9000)")
    parser.add_argument(
        "--delay", type=float, default=0, help="seconds added to every transcription (default: 0)"
    )
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="end with the process that started this one",
    )
    arguments = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", arguments.port))
    server = uvicorn.Server(uvicorn.Config(Engine(arguments.delay).app(), log_level="warning"))
    if arguments.until_stdin_closes:
        end_with_parent()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
