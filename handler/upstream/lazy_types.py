"""Makes the packages of types of OpenAI's SDK import their modules on first use.

`import openai` imports the types of all endpoints, about 500 modules with 650 classes, which takes
longer than the rest of a cold start. Each package of types is a list of imports such as
`from .batch import Batch as Batch`. Here such a list becomes the package's `__getattr__` (PEP 562),
so that a name is imported when it is used. A package that holds anything else is run as it is, so
that a new release of the SDK can be slower but not broken.

This can go when Python imports lazily by itself (PEP 810, Python 3.15), or when the SDK does.
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
    """Finds the package `root` and the packages inside it; all else is left to other finders."""

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
    def exec_module(self, module: ModuleType) -> None:
        imports = _imports(self.get_source(module.__name__) or "")
        if not imports:
            super().exec_module(module)
            return

        def resolve(name: str) -> Any:
            if name == "__all__":  # for `import *`
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
    """Return a module of the package; running the list of imports would have imported it."""
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
    """Make the packages that are imported from now on lazy."""
    sys.meta_path.insert(0, LazyPackages(root))


def _imports(source: str) -> dict[str, tuple[str, str]]:
    """Return each name of a package with the module that it is imported from and its name there.

    Return nothing if the source holds anything else, or if a name is also a module of the package.
    """
    found: dict[str, tuple[str, str]] = {}
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.ImportFrom) or statement.module is None:
            return {}
        for name in statement.names:
            found[name.asname or name.name] = ("." * statement.level + statement.module, name.name)
    modules = {module.strip(".").partition(".")[0] for module, _ in found.values()}
    return {} if "*" in found or modules & found.keys() else found
