"""Build and use the React example."""

import shutil

from tests.clients.conftest import install, npm
from tests.conftest import ROOT, serving
from tests.examples.page import use_page


def test_the_react_example_records_and_shows_the_transcript(server, engine, browser, tmp_path):
    folder = tmp_path / "examples" / "react"
    install(ROOT / "examples" / "react", folder)
    shutil.copytree(ROOT / "handler" / "web" / "page", tmp_path / "handler" / "web" / "page")
    with serving(server(openai_base_url=engine.url).app) as url:
        npm("run", "build", folder=folder, VITE_STENO_URL=url)
        assert "Ever tried" in use_page(folder / "dist", browser)
