"""Build the two bundles of the Lambda functions: folders with code and packages, without Docker.

    python -m infra.bundle FOLDER    build both bundles and print the size of each package

The bundles contain bytecode if the Python version of the functions is installed on this machine.
Lambda's code folder is read-only, so without bytecode every cold start compiles all modules.
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

from infra.lock import locked_requirements

ROOT = Path(__file__).parent.parent
HANDLER = ROOT / "handler"
LOCK = HANDLER / "requirements.lock"
MAX_GLIBC_MINOR = 34  # Amazon Linux 2023 has glibc 2.34

# The AWS services that Steno or boto3 itself uses. botocore includes models of 400 services.
_SERVICES = {"dynamodb", "s3", "secretsmanager", "sqs", "sts"}
_UNUSED = (
    "bin",
    "**/tests",
    "**/*.pyi",
    # importlib.metadata reads every .dist-info folder when it searches for entry points. Keep the
    # folders of httpx2 and httpcore2: each package reads its own version from its folder.
    "[!h]*.dist-info",
    "h[!t]*.dist-info",
    "ht*.dist-info/RECORD",
    "ht*.dist-info/INSTALLER",
    "ht*.dist-info/REQUESTED",
    "boto3/examples",
    "pydantic/v1",  # FastAPI works without it
    "fastapi_offline/static/redoc.standalone.js",  # /docs uses Swagger UI
)


@dataclass(frozen=True)
class Target:
    """The Python version (such as `3.13`) and machine (such as `aarch64`) to build a bundle for."""

    python: str = "3.13"
    machine: str = "aarch64"

    @classmethod
    def here(cls) -> "Target":
        """Return the target that matches the running interpreter."""
        return cls(f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine())

    def markers(self) -> dict[str, str]:
        """Return the values of the environment markers (PEP 508) on this target."""
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "platform_machine": self.machine,
            "sys_platform": "linux",
        }


@dataclass(frozen=True)
class Bundle:
    """The code of a Lambda function.

    `entries` are the entry points, which are modules in `handler/`. The modules that they import
    are also included. `requirements` is the file that lists the packages, and `folders` are data
    folders to include. Paths are relative to `handler/`.
    """

    name: str
    entries: tuple[str, ...]
    requirements: str
    folders: tuple[str, ...] = ()

    def modules(self) -> list[Path]:
        """Return the source files in `handler/` that the entries import, directly or indirectly."""
        found: set[Path] = set()
        pending = [f"handler.{name}" for name in self.entries]
        while pending:
            for path in _files_of(pending.pop()):
                if path not in found:
                    found.add(path)
                    pending += _imports(path)
        return sorted(found)

    def fingerprint(self, target: Target) -> str:
        """Return a hash of all build inputs. It is the same on every machine."""
        digest = hashlib.sha256(repr((target, bool(_interpreter(target)))).encode())
        data = [path for name in self.folders for path in sorted((HANDLER / name).iterdir())]
        files = [*self.modules(), *data, HANDLER / self.requirements, LOCK, Path(__file__)]
        for path in files:
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()

    def build(self, folder: Path, target: Target) -> Path:
        """Build the bundle in a subfolder of `folder` and return the subfolder.

        If a subfolder with the same fingerprint exists, it is reused.
        """
        bundle = folder / f"{self.name}-{self.fingerprint(target)[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{bundle.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building the same bundle
            return bundle if bundle.exists() else self._build(folder, bundle, target)

    def _build(self, folder: Path, bundle: Path, target: Target) -> Path:
        unfinished = folder / f"{bundle.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        lines = locked_requirements(self.packages(), LOCK.read_text(), target.markers())
        _install(lines, unfinished, target)
        for path in self.modules():
            copy = unfinished / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        for name in self.folders:
            shutil.copytree(HANDLER / name, unfinished / "handler" / name)
        _drop_unused(unfinished)
        _compile(unfinished, target)
        # Lambda's user must be able to read the files, whatever the umask of this machine is.
        for path in unfinished.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return unfinished.rename(bundle)

    def packages(self) -> list[str]:
        """Return the package names in the requirements file, without duplicates."""
        lines = (
            line.partition("#")[0].strip()
            for line in (HANDLER / self.requirements).read_text().splitlines()
        )
        return list(dict.fromkeys(Requirement(line).name for line in lines if line))


# The cutter has its own bundle, because FFmpeg makes it three times as large as the API bundle.
_PROFILES = "upstream/servers"
API = Bundle("api", ("main", "worker"), "requirements.txt", ("web/page", _PROFILES))
CUTTER = Bundle("cutter", ("worker", "recordings.decoder"), "requirements-worker.txt", (_PROFILES,))


def _files_of(name: str) -> Iterator[Path]:
    """Yield the files that Python reads to import `name`, a module or a member of a module."""
    path = ROOT
    for part in name.split("."):
        path /= part
        if (path / "__init__.py").exists():
            yield path / "__init__.py"
        elif path.with_suffix(".py").exists():
            yield path.with_suffix(".py")
            return


def _imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports from the `handler` package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.partition(".")[0] == "handler"
        ):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _install(lines: list[str], folder: Path, target: Target) -> None:
    """Install the wheels for the requirements `lines` into `folder`.

    Exits with pip's error message if pip fails, for example because a hash does not match.
    """
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
        sys.exit(f"pip could not install the packages of the bundle:\n{run.stderr}")


def _drop_unused(folder: Path) -> None:
    for pattern in _UNUSED:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    data = folder / "botocore" / "data"
    for path in data.iterdir():
        if path.is_dir() and path.name not in _SERVICES:
            shutil.rmtree(path)
    # The bundle is zipped, so these files do not have to be compressed separately. Decompressing
    # them now saves time during a cold start.
    for path in data.rglob("*.json.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    _trim_endpoints(data / "endpoints.json")


def _trim_endpoints(path: Path) -> None:
    """Remove the services that Steno does not use from botocore's list of endpoints.

    Each boto3 client reads the whole list. For the full list, this takes 10 % of a cold start.
    """
    endpoints = json.loads(path.read_text())
    for partition in endpoints["partitions"]:
        partition["services"] = {
            name: service for name, service in partition["services"].items() if name in _SERVICES
        }
    path.write_text(json.dumps(endpoints))


def _compile(folder: Path, target: Target) -> None:
    interpreter = _interpreter(target)
    if interpreter is None:
        print(
            f"\n*** WARNING: python{target.python} was not found, so the bundle has no bytecode."
            "\n*** Every cold start takes about twice as long."
            f" Install Python {target.python}: uv python install {target.python}\n",
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
    # The bytecode contains the paths that the files have in Lambda. The fixed hash seed makes the
    # order of sets in the bytecode the same on every machine.
    paths = ["-s", str(folder), "-p", "/var/task", str(folder)]
    subprocess.run([*command, *paths], check=True, env={**_environment(), "PYTHONHASHSEED": "0"})


def _environment() -> dict[str, str]:
    """Return the environment variables, except PYTHON*, which could change the bytecode.

    The shims of pyenv and asdf need the other variables.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _interpreter(target: Target) -> str | None:
    """Return the path of an interpreter with the target's Python version, or None.

    Checks the running interpreter, PATH, pyenv and uv, in this order.
    """
    if target.python == Target.here().python:
        return sys.executable
    if found := shutil.which(f"python{target.python}"):
        trial = subprocess.run(
            [found, "-c", ""], capture_output=True, env=_environment(), check=False
        )
        # pyenv also has shims for versions that are not active. These shims fail when they are run.
        if trial.returncode == 0:
            return found
    home = Path.home()
    installed = [
        *Path(os.environ.get("PYENV_ROOT", home / ".pyenv")).glob(
            f"versions/{target.python}.*/bin/python"
        ),
        *(home / ".local/share/uv/python").glob(
            f"cpython-{target.python}*/bin/python{target.python}"
        ),
    ]
    return str(installed[0]) if installed else None


def sources_without_byte_code(folder: Path) -> list[Path]:
    """Return the source files in `folder` that have no valid, unchecked hash-based .pyc file."""
    return [path for path in folder.rglob("*.py") if not _is_compiled(path)]


def _is_compiled(path: Path) -> bool:
    # The header of an unchecked hash-based .pyc file: https://peps.python.org/pep-0552/
    unchecked = (1).to_bytes(4, "little") + importlib.util.source_hash(path.read_bytes())
    compiled = path.parent.glob(f"__pycache__/{path.stem}.cpython-*.pyc")
    return any(found.read_bytes()[4:16] == unchecked for found in compiled)


def required_glibc_minor(folder: Path) -> int:
    """Return the highest minor version of glibc 2 that a binary in `folder` requires."""
    versions_by_file = (
        re.findall(rb"GLIBC_2\.(\d+)", path.read_bytes())
        for path in folder.rglob("*.so*")
        if path.is_file()
    )
    return max((int(version) for versions in versions_by_file for version in versions), default=0)


def zipped_sizes(folder: Path) -> Counter[str]:
    """Return the compressed sizes in bytes.

    There is one size for each package, and one size for all .dist-info folders together.
    """
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
