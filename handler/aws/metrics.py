"""Writes CloudWatch metrics as lines of the Embedded Metric Format.

CloudWatch reads the metrics from the log, so they need neither a request to AWS nor an IAM
permission. They contain only numbers and error codes, never audio, transcripts, prompts or keys.
Format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
import time
from typing import TextIO

# All other metrics have the unit Count.
_UNITS = {"UpstreamMilliseconds": "Milliseconds", "SecondsPaid": "Seconds"}


class Metrics:
    """Writes metrics to `out`. If `out` is None, as outside Lambda, it writes nothing."""

    def __init__(self, out: TextIO | None, namespace: str = "Steno") -> None:
        self._out = out
        self._namespace = namespace

    def emit(self, code: str = "", **values: float) -> None:
        """Write metrics. Each keyword argument is the name and the value of a metric.

        With an error `code`, CloudWatch counts the metrics in total and for each code.
        """
        if self._out is None:
            return
        metrics = [{"Name": name, "Unit": _UNITS.get(name, "Count")} for name in values]
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [[], ["Code"]] if code else [[]],
            "Metrics": metrics,
        }
        metadata = {"Timestamp": round(time.time() * 1000), "CloudWatchMetrics": [directive]}
        record = {"_aws": metadata, **({"Code": code} if code else {}), **values}
        # A single write, so that output of other threads cannot split the line.
        self._out.write(json.dumps(record) + "\n")
        self._out.flush()
