"""What is deployed: the functions' code and wheels, in two folders, built with pip. No Docker.

    python -m infra.bundle FOLDER    builds both, and says how large each of their packages is

Byte code is compiled in where the function's Python is found on this machine: Lambda's code folder cannot be written
to, so that without it every cold start compiles everything anew.
"""

import ast
import fcntl
import gzip
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from infra.lock import locked

ROOT = Path(__file__).parent.parent
HANDLER = ROOT / "handler"
LOCK = HANDLER / "requirements.lock"
MOST_GLIBC = 34  # 2.34, what Amazon Linux 2023 has

# botocore describes four hundred services; these are asked, and what the SDK reads of all.
_SERVICES = {"dynamodb", "s3", "secretsmanager", "sqs", "sts"}
_UNUSED = (
    "bin",
    "**/tests",
    "**/*.pyi",
    "[!h]*.dist-info",  # searched whole by whoever looks for plug-ins; httpx2 and httpcore2 read their own
    "h[!t]*.dist-info",
    "ht*.dist-info/RECORD",
    "ht*.dist-info/INSTALLER",
    "ht*.dist-info/REQUESTED",
    "boto3/examples",
    "pydantic/v1",  # looked for by FastAPI, which does without
)


@dataclass(frozen=True)
class Target:
    """Where a bundle runs: a Python such as `3.13`, and a machine such as `aarch64`."""

    python: str = "3.13"
    machine: str = "aarch64"

    @classmethod
    def here(cls) -> "Target":
        return cls(f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine())

    def markers(self) -> dict[str, str]:
        """Return the values of the environment markers of requirements."""
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "platform_machine": self.machine,
            "sys_platform": "linux",
        }


@dataclass(frozen=True)
class Bundle:
    """A function's code: the modules that its entries need, the folders they read, and the wheels that a file names."""

    name: str
    entries: tuple[str, ...]
    requirements: str
    folders: tuple[str, ...] = ()

    def modules(self) -> list[Path]:
        """Return the handler's files that the entries import, at once or later, and those of their packages."""
        found: set[Path] = set()
        waiting = [f"handler.{name}" for name in self.entries]
        while waiting:
            for path in _files_of(waiting.pop()):
                if path not in found:
                    found.add(path)
                    waiting += _imports(path)
        return sorted(found)

    def fingerprint(self, target: Target) -> str:
        """The same for the same inputs, on every machine."""
        digest = hashlib.sha256(repr((target, bool(_interpreter(target)))).encode())
        read = [path for name in self.folders for path in sorted((HANDLER / name).iterdir())]
        files = [*self.modules(), *read, HANDLER / self.requirements, LOCK, Path(__file__)]
        for path in files:
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()

    def build(self, folder: Path, target: Target) -> Path:
        """Make the bundle in a folder below `folder`, unless it is there already; return that folder."""
        place = folder / f"{self.name}-{self.fingerprint(target)[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{place.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building the same bundle
            return place if place.exists() else self._build(folder, place, target)

    def _build(self, folder: Path, place: Path, target: Target) -> Path:
        shutil.rmtree(unfinished := folder / f"{place.name}.unfinished", ignore_errors=True)
        unfinished.mkdir(parents=True)
        _install(locked(self.packages(), LOCK.read_text(), target.markers()), unfinished, target)
        for path in self.modules():
            copy = unfinished / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        for name in self.folders:
            shutil.copytree(HANDLER / name, unfinished / "handler" / name)
        _drop_unused(unfinished)
        _compile(unfinished, target)
        for path in unfinished.rglob(
            "*"
        ):  # whatever this machine's umask says, Lambda's own user has to read it
            path.chmod(0o755 if path.is_dir() else 0o644)
        return unfinished.rename(place)

    def packages(self) -> list[str]:
        """Return the names of the packages in the requirements, each once."""
        lines = (
            line.partition("#")[0].strip()
            for line in (HANDLER / self.requirements).read_text().splitlines()
        )
        return list(dict.fromkeys(Requirement(line).name for line in lines if line))


# The cutter has a bundle of its own because FFmpeg makes it three times as large.
API = Bundle("api", ("main", "worker"), "requirements.txt", ("web/page",))
CUTTER = Bundle("cutter", ("worker", "recordings.decoder"), "requirements-worker.txt")


def _files_of(name: str) -> Iterator[Path]:
    """Yield the files that the import of a dotted name reads; it may be of a module, or of something in one."""
    path = ROOT
    for part in name.split("."):
        path /= part
        if (path / "__init__.py").exists():
            yield path / "__init__.py"
        elif path.with_suffix(".py").exists():
            yield path.with_suffix(".py")
            return


def _imports(path: Path) -> Iterator[str]:
    """Yield the dotted names of the handler that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.partition(".")[0] == "handler"
        ):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _install(lines: list[str], folder: Path, target: Target) -> None:
    """Install what the lines of a requirements file name, if each wheel has one of its hashes."""
    platforms = [f"manylinux_2_28_{target.machine}", f"manylinux2014_{target.machine}"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "--no-compile",
    ]
    command += ["--target", str(folder), "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", target.python, *(f"--platform={name}" for name in platforms)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines))
        file.flush()
        command += ["--require-hashes", "-r", file.name]
        run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        sys.exit(f"The bundle cannot be built:\n{run.stderr}")


def _drop_unused(folder: Path) -> None:
    for pattern in _UNUSED:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    data = folder / "botocore" / "data"
    for path in data.iterdir():
        if path.is_dir() and path.name not in _SERVICES:
            shutil.rmtree(path)
    for path in data.rglob(
        "*.json.gz"
    ):  # the zip packs them as well, and nothing has to be unpacked twice
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    _cut_endpoints(data / "endpoints.json")


def _cut_endpoints(path: Path) -> None:
    """Leaves the services that are asked: a client reads the whole list, which is a tenth of a cold start."""
    listed = json.loads(path.read_text())
    for partition in listed["partitions"]:
        partition["services"] = {
            name: told for name, told in partition["services"].items() if name in _SERVICES
        }
    path.write_text(json.dumps(listed))


def _compile(folder: Path, target: Target) -> None:
    interpreter = _interpreter(target)
    if interpreter is None:
        print(
            f"\n*** No python{target.python} was found here, so that the bundle has no byte code: every cold start will"
            f"\n*** take about twice as long. Install Python {target.python} (`uv python install {target.python}`).\n",
            file=sys.stderr,
        )
        return
    command = [
        interpreter,
        "-m",
        "compileall",
        "-q",
        "-j",
        "0",
        "--invalidation-mode",
        "unchecked-hash",
    ]
    # As the function will see it; and the order of sets in the byte code is then the same everywhere.
    where = ["-s", str(folder), "-p", "/var/task", str(folder)]
    subprocess.run([*command, *where], check=True, env={**_environment(), "PYTHONHASHSEED": "0"})


def _environment() -> dict[str, str]:
    """Return what pyenv's and asdf's shims need, without Python's settings, which could change the byte code."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _interpreter(target: Target) -> str | None:
    """The target's Python on this machine: the running one, on the PATH, pyenv's or uv's."""
    if target.python == Target.here().python:
        return sys.executable
    if found := shutil.which(f"python{target.python}"):
        trial = subprocess.run(
            [found, "-c", ""], capture_output=True, env=_environment(), check=False
        )
        if (
            trial.returncode == 0
        ):  # pyenv's shims are there for versions that are not switched on, too
            return found
    home = Path.home()
    kept = [
        *Path(os.environ.get("PYENV_ROOT", home / ".pyenv")).glob(
            f"versions/{target.python}.*/bin/python"
        ),
        *(home / ".local/share/uv/python").glob(
            f"cpython-{target.python}*/bin/python{target.python}"
        ),
    ]
    return str(kept[0]) if kept else None


def without_byte_code(folder: Path) -> list[Path]:
    """The sources in a bundle whose byte code is missing, or is another source's, or would be checked against it."""
    return [path for path in folder.rglob("*.py") if not _is_compiled(path)]


def _is_compiled(path: Path) -> bool:
    unchecked = (1).to_bytes(4, "little") + importlib.util.source_hash(
        path.read_bytes()
    )  # as PEP 552 has it
    compiled = path.parent.glob(f"__pycache__/{path.stem}.cpython-*.pyc")
    return any(found.read_bytes()[4:16] == unchecked for found in compiled)


def glibc_of(folder: Path) -> int:
    """The newest glibc 2.x that any binary in the folder asks for."""
    asked = (
        re.findall(rb"GLIBC_2\.(\d+)", path.read_bytes())
        for path in folder.rglob("*.so*")
        if path.is_file()
    )
    return max((int(version) for versions in asked for version in versions), default=0)


def zipped_sizes(folder: Path) -> Counter[str]:
    """The bytes of each package when it is zipped; `.dist-info` folders count as one."""
    sizes: Counter[str] = Counter()
    for path in filter(Path.is_file, folder.rglob("*")):
        top = path.relative_to(folder).parts[0]
        sizes["*.dist-info" if top.endswith(".dist-info") else top] += len(
            zlib.compress(path.read_bytes())
        )
    return sizes


if __name__ == "__main__":
    for bundle in (API, CUTTER):
        built = bundle.build(Path(sys.argv[1]), Target())
        sizes = zipped_sizes(built)
        print(f"{built}: {sizes.total() / 1e6:.1f} MB zipped")
        print(
            *(f"  {name} {size / 1e6:.2f}" for name, size in sizes.most_common() if size > 50_000),
            sep="\n",
        )
