"""Lazy imports for the type packages of OpenAI's SDK.

`import openai` imports the types of all endpoints: about 500 modules with 650 classes. This takes
longer than the rest of a cold start. A type package contains only imports such as
`from .batch import Batch as Batch`. This module replaces them with a `__getattr__` (PEP 562) that
imports a name on first use. A package with other statements is executed normally, so a new release
of the SDK may be slower to import, but still works.

This module can be removed when the SDK supports lazy imports, or when Steno requires Python 3.15,
which has lazy imports (PEP 810).
"""

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_ROOT = "openai.types"


class LazyPackages(MetaPathFinder):
    """Finds the package `root` and its subpackages. Ignores all other modules."""

    def __init__(self, root: str) -> None:
        self._root = root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._root and not fullname.startswith(f"{self._root}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if (
            spec is None
            or spec.submodule_search_locations is None
            or type(spec.loader) is not SourceFileLoader
        ):
            return None
        spec.loader = _LazyPackage(spec.loader.name, spec.loader.path)
        return spec


class _LazyPackage(SourceFileLoader):
    """Loads a package without executing its imports, unless it also has other statements."""

    def exec_module(self, module: ModuleType) -> None:
        imports = _parse_imports(self.get_source(module.__name__) or "")
        if not imports:
            super().exec_module(module)
            return

        def resolve(name: str) -> Any:
            if name == "__all__":  # used by `import *`
                return [public for public in imports if not public.startswith("_")]
            if name in imports:
                source, imported = imports[name]
                value = getattr(import_module(source, module.__name__), imported)
            else:
                value = _submodule(module.__name__, name)
            setattr(module, name, value)
            return value

        module.__dict__["__getattr__"] = resolve
        module.__dict__["__dir__"] = lambda: sorted({*module.__dict__, *imports})


def _submodule(package: str, name: str) -> ModuleType:
    """Import a submodule. It is not an attribute yet, because the imports were not executed."""
    missing = AttributeError(f"module {package!r} has no attribute {name!r}")
    if name.startswith("__"):
        raise missing
    try:
        return import_module(f".{name}", package)
    except ModuleNotFoundError as error:
        if error.name != f"{package}.{name}":
            raise
        raise missing from None


def install(root: str = _ROOT) -> None:
    """Make the package `root` and its subpackages lazy if they are not imported yet."""
    sys.meta_path.insert(0, LazyPackages(root))


def _parse_imports(source: str) -> dict[str, tuple[str, str]]:
    """Return a dict that maps each imported name to its module and its name in that module.

    Returns an empty dictionary if the source contains other statements, or if a name is also the
    name of a submodule.
    """
    found: dict[str, tuple[str, str]] = {}
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.ImportFrom) or statement.module is None:
            return {}
        for name in statement.names:
            found[name.asname or name.name] = ("." * statement.level + statement.module, name.name)
    modules = {module.strip(".").partition(".")[0] for module, _ in found.values()}
    return {} if "*" in found or modules & found.keys() else found
