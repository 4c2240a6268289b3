"""Figures for CloudWatch, as lines of its Embedded Metric Format: no call, no waiting, and no right needed.

Figures and codes only: no recording, no text, no prompt, no key.
"""

import json
import time
from typing import TextIO

_UNITS = {"UpstreamMilliseconds": "Milliseconds", "SecondsPaid": "Seconds"}  # the others are counts


class Metrics:
    """Tells its figures to `out`; to nobody where there is none, as on a machine that no CloudWatch watches."""

    def __init__(self, out: TextIO | None, namespace: str = "Steno") -> None:
        self._out = out
        self._namespace = namespace

    def emit(self, code: str = "", **figures: float) -> None:
        """The figures by their names; a failure's `code` is what they are counted by."""
        if self._out is None:
            return
        told = [{"Name": name, "Unit": _UNITS.get(name, "Count")} for name in figures]
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [[], ["Code"]] if code else [[]],
            "Metrics": told,
        }
        about = {"Timestamp": round(time.time() * 1000), "CloudWatchMetrics": [directive]}
        line = {"_aws": about, **({"Code": code} if code else {}), **figures}
        self._out.write(
            json.dumps(line) + "\n"
        )  # at once, so that it is one line whatever else is printed
        self._out.flush()
