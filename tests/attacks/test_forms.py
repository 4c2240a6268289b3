"""Send forms very slowly, and send forms with mutated bytes."""

import contextlib
import itertools
import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import app, serving
from tests.test_temp_file import open_temp_files
from tests.web.test_contract import CODES
from tests.web.test_form import MULTIPART, form, part
from tests.web.test_form_wire import (
    GOOD,
    OPEN_FILES,
    SHORT,
    Upstream,
    _note_open_files,  # noqa: F401 - a fixture
    connect,
    head,
    in_process,
    is_up,
    read_response,
    wait_until_closed,
)

pytestmark = pytest.mark.anyio


def test_slow_clients_do_not_block_others(quick_or_soak, record_result):
    """A slow client uses a connection and a temporary file, but no thread."""
    slow = quick_or_soak(100, 400)
    with serving(app(Upstream())) as url, contextlib.ExitStack() as stack:
        start = head(f"Content-Length: {len(GOOD)}") + GOOD[:200]
        connections = [stack.enter_context(connect(url)) for _ in range(slow)]
        for connection in connections:
            connection.sendall(start)
        threads = threading.active_count()
        other_requests = 0
        for at in range(200, 220):  # one byte at a time
            for connection in connections:
                connection.sendall(GOOD[at : at + 1])
            assert is_up(url)
            other_requests += 1
        files = len(open_temp_files() - OPEN_FILES)
        assert threading.active_count() - threads < 10
        for connection in connections[: slow // 2]:
            connection.sendall(GOOD[220:])
        assert [read_response(connection) for connection in connections[: slow // 2]] == [
            (200, None)
        ] * (slow // 2)
        stack.close()
        assert wait_until_closed()
        assert is_up(url)
    assert files == slow
    record_result(
        "Clients that send a form byte by byte and then finish it or disconnect",
        f"{slow:,} concurrent clients",
        f"{other_requests} other requests served meanwhile; {slow // 2:,} slow requests served; no"
        " temporary file left by disconnected clients",
    )


VALID_FORM = form(
    *(
        part(f'; name="{name}"', value)
        for name, value in (("language", b"en"), ("prompt", b"Beckett"), ("keywords", b"Nagg"))
    ),
    part('; name="file"; filename="voice.webm"', SHORT[:600], "Content-Type: audio/webm"),
    part('; name="response_format"', b"text"),
)


MUTATIONS = {
    "flipped": lambda form, at, rng: (
        form[:at] + bytes([form[at] ^ 1 << rng.randrange(8)]) + form[at + 1 :]
    ),
    "removed": lambda form, at, rng: form[:at] + form[at + rng.randint(1, 40) :],
    "duplicated": lambda form, at, rng: form[:at] + form[at : at + rng.randint(1, 200)] + form[at:],
    "moved": lambda form, at, _rng: form[at:] + form[:at],
    "inserted": lambda form, at, rng: form[:at] + rng.choice(INSERTIONS) + form[at:],
    "truncated": lambda form, at, _rng: form[:at],
}


INSERTIONS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b'"',
    b"\\",
    b";",
    b":",
    b"--",
    b"\xff",
    b"--steno-test",
    b"\r\n--steno-test--\r\n",
    b"=",
)


async def test_a_mutated_form_is_accepted_or_rejected_with_a_code(quick_or_soak, record_result):
    rng, statuses = random.Random(1), Counter()
    positions = [
        at
        for at in range(len(VALID_FORM))
        if not VALID_FORM.index(SHORT[:600]) < at < VALID_FORM.index(SHORT[:600]) + 590
    ]
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    async with in_process() as http:
        for mutate in itertools.islice(
            itertools.cycle(MUTATIONS.values()), quick_or_soak(600, 20_000)
        ):
            mutated = VALID_FORM
            for _ in range(rng.choice((1, 1, 2, 5))):
                mutated = mutate(mutated, min(rng.choice(positions), len(mutated) - 1), rng) or b"-"
            response = await http.post(
                "/api/transcribe", content=mutated, headers={"Content-Type": MULTIPART}
            )
            assert response.status_code in (200, 415, 422), mutated
            assert (
                response.status_code == 200
                or (response.status_code, response.json()["code"]) in CODES
            )
            statuses[response.status_code] += 1
    assert wait_until_closed()
    assert len([*Path("/proc/self/fd").iterdir()]) <= descriptors + 1
    assert min(statuses[200], statuses[422]) > 0
    record_result(
        "Valid forms with bytes flipped, removed, duplicated, moved, inserted or truncated",
        f"{statuses.total():,} forms",
        f"{statuses[200]:,} accepted, {statuses.total() - statuses[200]:,} rejected with a code; no"
        " temporary file left",
    )
