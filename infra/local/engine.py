"""An offline speech engine, compatible with OpenAI's transcription API, for trials and tests.

    python -m infra.local.engine --port 9000
    OPENAI_BASE_URL=http://127.0.0.1:9000/v1 OPENAI_API_KEY=offline \\
        python -m uvicorn handler.main:app

It transcribes English with the model in the moonshine-voice wheel. It validates requests in the
same order as OpenAI: first the file extension, then the options, then the content.

For tests and benchmarks, responses can be scripted. `POST /script` takes a list of `Reply` objects
for the next requests. `GET /calls` returns the requests since the last `DELETE /calls`.
"""

import argparse
import hashlib
import json
import math
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import anyio
import anyio.to_thread
import av
import pysubs2
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from infra.local.child import exit_with_parent
from infra.local.recognizer import Line, Recognizer, Transcription
from infra.local.servers import SERVERS, RequestError, ServerRules

MAX_BYTES = 25 * 1024 * 1024

# The demuxer for each file extension that OpenAI accepts. As with OpenAI, a file whose content does
# not match its extension cannot be decoded.
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
# OpenAI ignores `stream` for the other models.
_STREAMING_MODELS = {name for name in _FORMATS if name.startswith("gpt-4o")}
_ALL_FORMATS = {"json", "text", "srt", "vtt", "verbose_json"}


@dataclass(frozen=True)
class Reply:
    """A scripted response for the next `times` transcription requests.

    The response is sent after `delay` seconds. A `body` that is not a string is sent as JSON. If
    `drip` is set, the body is sent one character at a time, each after a pause of `drip` seconds.
    If `broken` is set, the connection is closed after half of the body. If there is no body and
    `status` is not an error, the recording is transcribed.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    drip: float = 0
    broken: bool = False
    times: int = 1


class Engine:
    """The HTTP server of the engine. It waits `delay` seconds before every transcription."""

    def __init__(self, delay: float = 0) -> None:
        self._recognizer = Recognizer()
        self._delay = delay
        self._script: deque[Reply] = deque()
        self._calls: list[dict[str, Any]] = []

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/audio/transcriptions", self.transcribe, methods=["POST"]),
                Route("/{server}/v1/audio/transcriptions", self.transcribe, methods=["POST"]),
                Route("/health", self.health),
                Route("/script", self.script, methods=["POST"]),
                Route("/calls", self.calls, methods=["GET", "DELETE"]),
            ]
        )

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def script(self, request: Request) -> Response:
        self._script.clear()
        for fields in await request.json():
            reply = Reply(**fields)
            self._script.extend([reply] * reply.times)
        return Response(status_code=204)

    async def calls(self, request: Request) -> Response:
        """Return the requests received since the last DELETE. `seconds` is the billed duration."""
        calls = list(self._calls)
        if request.method == "DELETE":
            self._calls.clear()
        return JSONResponse(calls)

    async def transcribe(self, request: Request) -> Response:
        reply = self._script.popleft() if self._script else Reply()
        await anyio.sleep(self._delay + reply.delay)
        if reply.body is None and reply.status < 400:
            return await self._transcribe(request)
        async for _ in request.stream():
            pass
        self._calls.append({"seconds": 0, "status": reply.status})
        return _scripted(reply)

    async def _transcribe(self, request: Request) -> Response:
        server = SERVERS.get(request.path_params.get("server", ""))
        call: dict[str, Any] = {"seconds": 0, "status": 200, "path": request.url.path}
        self._calls.append(call)
        try:
            async with request.form(max_part_size=1024 * 1024) as form:
                recording, demuxer, response_format = await _validate(form, call, server)
                result = await anyio.to_thread.run_sync(
                    self._recognizer.transcribe, recording, demuxer
                )
        except (av.FFmpegError, ValueError, IndexError, MemoryError):
            failure = RequestError(
                400, "The audio file could not be decoded or its format is not supported.", "file"
            )
        except RequestError as error:
            failure = error
        else:
            if result.duration >= 0.1:
                call["seconds"] = math.ceil(result.duration)
                return _response(result, response_format, call["fields"], server)
            failure = RequestError(
                400,
                "Audio file is too short. Minimum audio length is 0.1 seconds.",
                "file",
                "audio_too_short",
            )
        call["status"] = failure.status
        body = server.format_error(failure.error) if server else {"error": failure.error}
        return JSONResponse(body, failure.status)


async def _validate(
    form: FormData, call: dict[str, Any], server: ServerRules | None
) -> tuple[bytes, str, str]:
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise RequestError(400, "you must provide a file", "file")
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
        raise RequestError(413, f"Maximum content size limit ({MAX_BYTES}) exceeded")
    demuxer = _DEMUXERS.get((upload.filename or "").rpartition(".")[2])
    if demuxer is None:
        raise RequestError(
            400,
            f"Unsupported file format. Supported: {sorted(_DEMUXERS)}",
            "file",
            "unsupported_value",
        )
    if server:
        server.check(fields)
        return recording, demuxer, str(fields.get("response_format", "json"))
    return recording, demuxer, _response_format(fields)


def _response_format(fields: dict[str, Any]) -> str:
    model, response_format = fields.get("model"), fields.get("response_format", "json")
    if not model:
        raise RequestError(400, "you must provide a model parameter", "model")
    if response_format not in _FORMATS.get(model, _ALL_FORMATS):
        raise RequestError(
            400,
            f"response_format '{response_format}' is not compatible with model '{model}'",
            "response_format",
        )
    if any(set("<>\r\n") & set(keyword) for keyword in fields.get("keywords[]", [])):
        raise RequestError(400, "keywords must not contain <, > or line breaks", "keywords")
    return str(response_format)


def _response(
    result: Transcription,
    response_format: str,
    fields: dict[str, Any],
    server: ServerRules | None,
) -> Response:
    if response_format in ("text", "srt", "vtt"):
        return PlainTextResponse(
            result.text + "\n" if response_format == "text" else _subtitles(result, response_format)
        )
    body: dict[str, Any] = {
        "text": result.text,
        "usage": {"type": "duration", "seconds": math.ceil(result.duration)},
    }
    if response_format == "json" and fields["model"] == "gpt-transcribe":
        body["languages"] = [{"code": "en"}]
    if "logprobs" in fields.get("include[]", []):
        body["logprobs"] = [{"token": word, "logprob": -0.1} for word in result.text.split()]
    if fields.get("stream") == "true" and fields["model"] in _STREAMING_MODELS:
        events = "".join(map(_event, _events(result, response_format, body)))
        return Response(events, media_type="text/event-stream")
    # Mistral has only one format, which includes segments if the request asks for them.
    if response_format != "json" or (server and "response_format" not in server.fields):
        body |= {"task": "transcribe", "language": "english", "duration": result.duration}
        granularities = fields.get("timestamp_granularities[]") or ["segment"]
        if "segment" in granularities:
            body["segments"] = [
                _segment(number, line, response_format) for number, line in enumerate(result.lines)
            ]
        if "word" in granularities:
            body["words"] = [word for line in result.lines for word in _words(line)]
    return JSONResponse(server.reshape(body, fields) if server else body)


def _events(
    result: Transcription, response_format: str, body: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the events of OpenAI's stream. Each delta contains one word."""
    for number, word in enumerate(result.text.split()):
        yield {"type": "transcript.text.delta", "delta": f" {word}" if number else word}
    if response_format == "diarized_json":
        for number, line in enumerate(result.lines):
            yield _segment(number, line, response_format)
    yield {"type": "transcript.text.done", **body}


def _event(fields: dict[str, Any]) -> str:
    return f"data: {json.dumps(fields)}\n\n"


def _words(line: Line) -> list[dict[str, Any]]:
    """Return the words of a line. Their timestamps are estimated from those of the line."""
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


def _subtitles(result: Transcription, response_format: str) -> str:
    file = pysubs2.SSAFile()
    for line in result.lines:
        file.append(pysubs2.SSAEvent(round(line.start * 1000), round(line.end * 1000), line.text))
    return file.to_string(response_format)


def _scripted(reply: Reply) -> Response:
    if not reply.drip and not reply.broken:
        response = PlainTextResponse if isinstance(reply.body, str) else JSONResponse
        return response(reply.body, reply.status, headers=reply.headers)
    content = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
    return StreamingResponse(_stream(content, reply), reply.status, headers=reply.headers)


async def _stream(content: str, reply: Reply) -> AsyncIterator[str]:
    characters = content[: len(content) // 2] if reply.broken else content
    for character in characters:
        await anyio.sleep(reply.drip)
        yield character
    if reply.broken:
        raise ConnectionAbortedError("broken as scripted")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.engine", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--port", type=int, default=9000, help="port to listen on; 0: any free port (default: 9000)"
    )
    parser.add_argument(
        "--delay",
        type=float,
        default=0,
        help="seconds to wait before every transcription (default: 0)",
    )
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="exit when the standard input is closed",
    )
    arguments = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", arguments.port))
    server = uvicorn.Server(uvicorn.Config(Engine(arguments.delay).app(), log_level="warning"))
    if arguments.until_stdin_closes:
        exit_with_parent()
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
