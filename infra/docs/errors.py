"""Renders the reference page of the errors, and the page `/errors` that each server includes."""

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from handler.errors import StenoError

_TEXTS = Path(__file__).parent / "errors.json"
_INTRODUCTION = """\
# Errors

An error is a JSON object with the media type `application/problem+json`
([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)):

```json
{
  "type": "http://127.0.0.1:8000/errors#unsupported_media",
  "title": "Unsupported Media Type",
  "status": 415,
  "detail": "The file is text, not a recording. Send an audio or video file.",
  "code": "unsupported_media",
  "request_id": "0f7b6f3c5d0f4d8f9d8a1f7f7e0c4c2e"
}
```

Use `code` in programs, and show `detail` to users. `type` is a URL on the server that sent the
response. The page at this URL explains the code. `request_id` is also in the header `X-Request-Id`
and in the server log. Routes under `/v1` return errors in OpenAI's format, with the same `code`.

If the response has the header `Retry-After`, send the same request again after this number of
seconds.

On AWS, API Gateway itself rejects some requests. Its responses contain only a `message`:

- 401: the JWT is missing or not valid (only with `AUTH=jwt`).
- 413: the request is larger than 6 MB, which corresponds to a recording of about 4.7 MB.
- 429: there are too many requests per second.
- 503: the API function is not available.
"""
_SECTION = """\
## {code}

Status {status}. {cause}

**What to do:** {remedy}
"""
_HTML = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Errors of the Steno API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page/style.css">
</head>
<body>
<main>
<h1>Errors</h1>
{sections}</main>
</body>
</html>
"""
_HTML_SECTION = """\
<section id="{code}">
<h2><code>{code}</code> (status {status})</h2>
<p>{cause}</p>
<p><strong>What to do:</strong> {remedy}</p>
</section>
"""


class _Entry(NamedTuple):
    code: str
    status: str
    cause: str
    remedy: str


def render() -> str:
    """Return docs/reference/errors.md, with one heading for each code."""
    sections = [_SECTION.format_map(entry._asdict()) for entry in _entries()]
    return "\n".join([_INTRODUCTION, *sections])


def render_html() -> str:
    """Return the page `/errors`. The `type` of an error is the URL of its section."""
    sections = "".join(
        _HTML_SECTION.format_map({name: _to_html(text) for name, text in entry._asdict().items()})
        for entry in _entries()
    )
    return _HTML.format(sections=sections)


def _to_html(text: str) -> str:
    return re.sub("`(.+?)`", r"<code>\1</code>", escape(text))


def _entries() -> Iterator[_Entry]:
    texts = json.loads(_TEXTS.read_text())
    for code, status in sorted(_statuses(StenoError).items(), key=lambda item: (item[1], item[0])):
        yield _Entry(code, str(status), texts[code]["cause"], texts[code]["remedy"])


def _statuses(error: type[StenoError]) -> dict[str, int]:
    """Return the HTTP status of each code of `error` and its subclasses."""
    statuses = {error.code: int(error.status)} if "code" in vars(error) else {}
    for subclass in error.__subclasses__():
        statuses |= _statuses(subclass)
    return statuses
