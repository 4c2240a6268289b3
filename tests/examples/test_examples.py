"""Run every code block of README.md and docs/ against a server that `make run` has started."""

import json
import shutil
import subprocess

import httpx2
import pytest
import yaml

from tests.browsers.drivers import NO_CHROMIUM, until
from tests.conftest import ROOT
from tests.examples.blocks import PAGES, Block, blocks, blocks_in
from tests.examples.checks import check
from tests.examples.page import use_page
from tests.samples import asset

SHELLS = {"bash": ("bash", "-eu", "-o", "pipefail"), "zsh": ("zsh", "-feu", "-o", "pipefail")}
COMMANDS = {"sh": "{content}", "python": "python3 {file}", "js": "node {file}"}
SUFFIXES = {"python": "py", "js": "mjs"}
CHECKED = ("json", "yaml", "jsx", "ts", "html", *COMMANDS)
SHOWN = ("text", "mermaid")
_HANGS_AFTER_SECONDS = 300


def page_names(*languages):
    return sorted({str(block.page.relative_to(ROOT)) for block in blocks_in(*languages)})


def to_script(page, folder, server):
    """Return a shell script that runs all blocks of a page, and prints where each begins."""
    lines = []
    for block in blocks(page):
        if block.language in COMMANDS:
            content = block.content.replace("http://127.0.0.1:8000", server)
            file = folder / f"block-{block.line}.{SUFFIXES.get(block.language, 'sh')}"
            file.write_text(content)
            lines += [
                f"echo 'Running {block}' >&2",
                COMMANDS[block.language].format(content=content, file=file.name),
            ]
    return "\n".join(lines)


def failed_job(server):
    """Create a job that fails, because its recording is not one. Return its id."""
    with httpx2.Client(base_url=server, timeout=60) as http:
        created = http.post("/api/uploads", json={"size": 100}).json()
        form = created["upload"]
        httpx2.post(form["url"], data=form["fields"], files={"file": b"none"}).raise_for_status()
        path = f"/api/transcriptions/{created['id']}"
        until(lambda: http.get(path).json()["status"] == "failed")
    return created["id"]


def run(script, shell, folder, path, server=""):
    """Run a script in `folder`, with `path` as PATH.

    Return the calls of the programs that are only recorded.
    """
    calls = folder / "calls"
    calls.write_text("")
    done = subprocess.run(
        [*SHELLS[shell], "-c", script],
        cwd=folder,
        env={
            "HOME": str(folder),
            "PATH": path,
            "CALLS": str(calls),
            "STENO": server,
            "NO_PROXY": "127.0.0.1",
            # What a reader has set. The token is a JWT without claims.
            "TOKEN": "e30.e30.e30",
            "ACCESS_TOKEN": "e30.e30.e30",
            "JOB": failed_job(server) if server else "",
        },
        input="the input\n" * 10,
        timeout=_HANGS_AFTER_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return [json.loads(line) for line in calls.read_text().splitlines()]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", page_names(*COMMANDS))
def test_all_commands_of_a_page_run_in_its_order(name, shell, copy, steno, programs):
    if not shutil.which(shell):
        pytest.skip(f"not installed: {shell}")
    script = to_script(ROOT / name, copy, steno)
    for call in run(script, shell, copy, programs, steno):
        check(call)


@pytest.mark.parametrize(
    "broken", ["false", "curl http://127.0.0.1:8000/api/none", "curl -F file=@none.wav 127.0.0.1"]
)
def test_a_broken_command_fails(broken, copy, steno, programs):
    with pytest.raises(AssertionError):
        run(broken.replace("http://127.0.0.1:8000", steno), "bash", copy, programs)


@pytest.mark.parametrize(
    "broken",
    [
        "make deploy with='-c origin=https://app.example'",
        "make dploy",
        "AUTH=tokn make run",
        "aws s3api list-objects --bukket x",
    ],
)
def test_a_wrong_option_fails(broken, copy, programs):
    (call,) = run(broken, "bash", copy, programs)
    with pytest.raises((AssertionError, SystemExit, ValueError)):
        check(call)


def test_each_block_names_a_language_that_is_tested_or_only_shown():
    for block in (block for page in PAGES for block in blocks(page)):
        assert block.language in (*CHECKED, *SHOWN), block


@pytest.mark.parametrize("block", blocks_in("json", "yaml"), ids=str)
def test_json_and_yaml_blocks_are_valid(block):
    (json.loads if block.language == "json" else yaml.safe_load)(block.content)


@pytest.mark.parametrize("block", blocks_in("ts"), ids=str)
def test_typescript_blocks_have_valid_syntax(block, tmp_path, programs):
    """They import packages of other vendors, which are not installed."""
    file = tmp_path / "block.mts"
    file.write_text(block.content)
    run(f"node --check {file}", "bash", tmp_path, programs)


@pytest.mark.parametrize("block", blocks_in("jsx"), ids=str)
def test_a_react_component_is_part_of_the_example(block):
    """`make clients` builds and runs the example."""
    files = (ROOT / "examples" / "react" / "src").iterdir()
    assert any(block.content.strip() in file.read_text() for file in files)


@pytest.mark.parametrize(
    "program", ["python3 examples/python/transcribe.py", "node examples/node/transcribe.mjs"]
)
def test_an_example_program_sends_recordings_of_any_size(program, copy, steno, programs):
    large = copy / "large.wav"
    large.write_bytes(padded(asset("beckett.wav"), 27_000_000))
    for file, options, text in (
        ("voice.m4a", "", "Ever tried"),
        ("large.wav", "--format srt", "-->"),
    ):
        command = f"{program} {file} {options} --url {steno} > words.txt"
        run(command, "bash", copy, programs)
        assert text in (copy / "words.txt").read_text()
    with pytest.raises(AssertionError, match=r"none\.wav"):
        run(f"{program} none.wav --url {steno}", "bash", copy, programs)


def padded(wav, size):
    """Return a WAV file with a chunk of zeros, which decoders skip, up to about `size` bytes."""
    chunk = b"JUNK" + size.to_bytes(4, "little") + bytes(size)
    content = wav + chunk
    return content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:]


@pytest.mark.skipif(bool(NO_CHROMIUM), reason=NO_CHROMIUM)
@pytest.mark.parametrize(
    "block",
    [
        *blocks_in("html"),
        Block(
            ROOT / "examples" / "static-page" / "index.html",
            1,
            "html",
            (ROOT / "examples" / "static-page" / "index.html").read_text(),
        ),
    ],
    ids=str,
)
def test_a_page_on_another_port_transcribes(block, steno, browser, tmp_path):
    content = block.content.replace("http://127.0.0.1:8000", steno)
    (tmp_path / "index.html").write_text(content)
    assert "Ever tried" in use_page(tmp_path, browser)
