"""How long a cold start takes, beside the app that a good tutorial gives: fresh processes that import their bundles.

python -m benchmarks.cold
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.bundle import API, ROOT, Target

RUNS = 9
_ENVIRONMENT = {
    "PATH": os.defpath,
    "AUTH": "open",
    "OPENAI_API_KEY": "offline",
    "AWS_LAMBDA_FUNCTION_NAME": "steno",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "BUCKET_NAME": "steno",
    "TABLE_NAME": "steno",
}
_STENO = "import anyio, handler.main; wiring = handler.main.app.state.wiring; "
_SPEECH, _JOBS = "anyio.run(wiring.speech); ", "wiring.jobs.objects.origin; wiring.jobs.client; "
# What each is ready for: the program, and whether it is the tutorial's.
CASES = {
    "a transcription, the tutorial's": ("import naive", True),
    "a transcription": (_STENO + _SPEECH, False),
    "a status poll or an upload": (_STENO + _JOBS, False),
    "both": (_STENO + _SPEECH + _JOBS, False),
    "the page": ("import handler.main", False),
}


def tutorial(folder: Path) -> Path:
    """The tutorial's bundle: its file and everything that pip brings, with byte code."""
    requirements = str(ROOT / "handler" / "requirements.txt")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-compile"]
    subprocess.run([*pip, "--target", str(folder), "-r", requirements], check=True, stderr=subprocess.DEVNULL)
    shutil.copy(ROOT / "benchmarks" / "naive.py", folder)
    compiling = [sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*compiling, str(folder)], check=True)
    return folder


def seconds(folder: Path, program: str) -> float:
    environment = {**_ENVIRONMENT, "PYTHONPATH": str(folder)}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", program], env=environment, cwd=folder, check=True)
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundles = {True: tutorial(Path(folder)), False: API.build(ROOT / ".bundles", Target.here())}
        runs: dict[str, list[float]] = {name: [] for name in CASES}
        for _ in range(RUNS):  # in turn, because machines have better and worse moments
            for name, (program, is_tutorial) in CASES.items():
                runs[name].append(seconds(bundles[is_tutorial], program))
    medians = {name: statistics.median(taken) for name, taken in runs.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"ready for {name:32} {median * 1000:5.0f} ms, {median / first:.2f} of the tutorial's")


if __name__ == "__main__":
    main()
