"""What runs inside Lambda. The version is here alone: pyproject.toml and /openapi.json read it."""

__version__ = "0.1.1"
