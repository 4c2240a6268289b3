"""Many slow clients, and good forms with a few bytes changed."""

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
    KNOWN,
    SHORT,
    Upstream,
    _known_files,  # noqa: F401 - a fixture
    answered,
    connected,
    head,
    in_process,
    is_up,
    until_gone,
)

pytestmark = pytest.mark.anyio


def test_many_slow_clients_keep_nobody_waiting(often, tried):
    """Each holds a connection and a temp file, and no thread; the recordings of others pass all of them by."""
    slow = often(100, 400)
    with serving(app(Upstream())) as url, contextlib.ExitStack() as stack:
        start = head(f"Content-Length: {len(GOOD)}") + GOOD[:200]
        held = [stack.enter_context(connected(url)) for _ in range(slow)]
        for connection in held:
            connection.sendall(start)
        threads = threading.active_count()
        others = 0
        for at in range(200, 220):  # a byte at a time
            for connection in held:
                connection.sendall(GOOD[at : at + 1])
            assert is_up(url)
            others += 1
        files = len(open_temp_files() - KNOWN)
        assert threading.active_count() - threads < 10
        for connection in held[: slow // 2]:
            connection.sendall(GOOD[220:])
        assert [answered(connection) for connection in held[: slow // 2]] == [(200, None)] * (
            slow // 2
        )
        stack.close()
        assert until_gone()
        assert is_up(url)
    assert files == slow
    tried(
        "Clients that send a form byte by byte, and leave or end it",
        f"{slow:,} at once",
        f"{others} others answered meanwhile, then {slow // 2:,} that ended; nothing left of those that left",
    )


WHOLE = form(
    *(
        part(f'; name="{name}"', value)
        for name, value in (("language", b"en"), ("prompt", b"Beckett"), ("keywords", b"Nagg"))
    ),
    part('; name="file"; filename="voice.webm"', SHORT[:600], "Content-Type: audio/webm"),
    part('; name="response_format"', b"text"),
)


CHANGES = {
    "flipped": lambda form, at, chance: (
        form[:at] + bytes([form[at] ^ 1 << chance.randrange(8)]) + form[at + 1 :]
    ),
    "removed": lambda form, at, chance: form[:at] + form[at + chance.randint(1, 40) :],
    "doubled": lambda form, at, chance: (
        form[:at] + form[at : at + chance.randint(1, 200)] + form[at:]
    ),
    "moved": lambda form, at, _chance: form[at:] + form[:at],
    "strange": lambda form, at, chance: form[:at] + chance.choice(STRANGE) + form[at:],
    "cut off": lambda form, at, _chance: form[:at],
}


STRANGE = (
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


async def test_a_good_form_changed_anywhere_is_taken_or_refused_with_a_code(often, tried):
    chance, answers = random.Random(1), Counter()
    framed = [
        at
        for at in range(len(WHOLE))
        if not WHOLE.index(SHORT[:600]) < at < WHOLE.index(SHORT[:600]) + 590
    ]
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    async with in_process() as http:
        for change in itertools.islice(itertools.cycle(CHANGES.values()), often(600, 20_000)):
            changed = WHOLE
            for _ in range(chance.choice((1, 1, 2, 5))):
                changed = (
                    change(changed, min(chance.choice(framed), len(changed) - 1), chance) or b"-"
                )
            answer = await http.post(
                "/api/transcribe", content=changed, headers={"Content-Type": MULTIPART}
            )
            assert answer.status_code in (200, 415, 422), changed
            assert answer.status_code == 200 or (answer.status_code, answer.json()["code"]) in CODES
            answers[answer.status_code] += 1
    assert until_gone()
    assert len([*Path("/proc/self/fd").iterdir()]) <= descriptors + 1
    assert min(answers[200], answers[422]) > 0
    tried(
        "Good forms with bytes flipped, removed, doubled, moved, put in or cut off",
        f"{answers.total():,} forms",
        f"all answered: {answers[200]:,} taken, {answers.total() - answers[200]:,} refused with a code; no file left",
    )
