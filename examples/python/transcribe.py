"""Transcribe a recording with Steno. If the server requires a token, set ACCESS_TOKEN."""

import argparse
import json
import os
import time
from pathlib import Path
from urllib.request import Request, urlopen


def form(fields, path):
    """Yield a form in chunks. The file is the last field, because S3 requires this."""
    field = '--steno-form\r\nContent-Disposition: form-data; name="'
    head = "".join(f'{field}{name}"\r\n\r\n{fields[name]}\r\n' for name in fields)
    yield f'{head}{field}file"; filename="recording"\r\n\r\n'.encode()
    with Path(path).open("rb") as file:
        yield from iter(lambda: file.read(1_000_000), b"")
    yield b"\r\n--steno-form--\r\n"


def send(url, headers, fields=None, path=None):
    """Send a GET request, JSON, or a form with a file. Return JSON as a dict, or other text."""
    headers = {"Content-Type": "application/json", **headers}
    body = json.dumps(fields).encode() if fields else None
    if path:
        headers["Content-Length"] = path.stat().st_size + sum(map(len, form(fields, os.devnull)))
        headers["Content-Type"] = "multipart/form-data; boundary=steno-form"
        body = form(fields, path)
    try:
        with urlopen(Request(url, body, headers), timeout=660) as response:
            is_json = "json" in response.headers.get_content_type()
            return json.load(response) if is_json else response.read().decode()
    except (OSError, ValueError) as error:
        text = error.read().decode() if hasattr(error, "read") else ""
        detail = json.loads(text).get("detail", text) if text.startswith("{") else text
        raise SystemExit(f"{url}: {error}\n{detail}") from None


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", type=Path, help="an audio or video file")
parser.add_argument("--format", default="text", choices=("text", "srt", "vtt"))
parser.add_argument("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
options = parser.parse_args()
if not options.file.is_file():
    parser.error(f"{options.file} does not exist, or is not a file")
path, url, fields = options.file, options.url.rstrip("/"), {"response_format": options.format}
access = {"Authorization": f"Bearer {os.environ.get('ACCESS_TOKEN', '')}"}
if (size := path.stat().st_size) <= send(f"{url}/api/config", {})["direct_max_bytes"]:
    result = send(f"{url}/api/transcribe", access, fields, path)
else:
    result = send(f"{url}/api/uploads", access, {**fields, "filename": path.name, "size": size})
    send(result["upload"]["url"], {}, result["upload"]["fields"], path)
if isinstance(result, dict):  # the recording became a job
    job = f"{url}/api/transcriptions/{result['id']}"
    while (state := send(job, access))["status"] not in ("completed", "failed"):
        os.write(2, f"{state['progress']['done']} parts are done\n".encode())
        time.sleep(2)
    result = send(f"{job}/transcript?response_format={options.format}", access)
print(result.strip())
