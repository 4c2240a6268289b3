"""Measure the recorder page with Lighthouse, and write its scores to the screenshots folder."""

import json
import shutil
from statistics import median

import pytest

from tests.browsers.drivers import NO_CHROMIUM
from tests.clients.conftest import install, node
from tests.clients.test_screenshots import FOLDER
from tests.conftest import ROOT, app, serving

RUNS = 5
PROGRAM = "node_modules/lighthouse/cli/index.js"
OPTIONS = (
    "--quiet",
    "--output=json",
    "--no-enable-error-reporting",
    "--only-categories=performance,accessibility,best-practices",
    "--chrome-flags=--headless=new --no-sandbox",
)
PRESETS = {"desktop": ("--preset=desktop",), "mobile": ()}  # mobile is Lighthouse's default


def measure(folder, url, preset):
    """Return the scores from 0 to 100, and the titles of the audits that failed."""
    chromium = shutil.which("chromium")
    report = json.loads(node(PROGRAM, url, *OPTIONS, *preset, folder=folder, CHROME_PATH=chromium))
    assert "runtimeError" not in report, report["runtimeError"]
    audits = {
        reference["id"]
        for name in ("accessibility", "best-practices")
        for reference in report["categories"][name]["auditRefs"]
        if reference["weight"]
    }
    failed = [
        audit["title"]
        for audit in report["audits"].values()
        if audit["id"] in audits and audit["score"] not in (1, None)
    ]
    scores = {name: category["score"] * 100 for name, category in report["categories"].items()}
    return scores, failed


@pytest.mark.skipif(bool(NO_CHROMIUM), reason=NO_CHROMIUM)
def test_lighthouse_gives_full_scores_for_accessibility_and_best_practices(tmp_path):
    folder = install(ROOT / "tests" / "clients" / "lighthouse", tmp_path)
    results, problems = {}, []
    with serving(app()) as url:
        for name, preset in PRESETS.items():
            runs = [measure(folder, url, preset) for _ in range(RUNS)]
            problems += [title for _, failed in runs for title in failed]
            results[name] = {
                category: round(median(scores[category] for scores, _ in runs))
                for category in runs[0][0]
            }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "lighthouse.json").write_text(json.dumps(results, indent=2) + "\n")
    assert problems == []
    for scores in results.values():
        assert (scores["accessibility"], scores["best-practices"]) == (100, 100)
