"""The Steno backend. pyproject.toml and /openapi.json read the version from here."""

__version__ = "0.1.1"
