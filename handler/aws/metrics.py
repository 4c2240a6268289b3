"""Writes CloudWatch metrics to the log, in the Embedded Metric Format.

CloudWatch reads the metrics from the log, so writing them requires no AWS request and no IAM
permission. They contain only numbers and error codes, never audio, transcripts, prompts or keys.
Format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
import time
from typing import TextIO

# All other metrics have the unit Count.
_UNITS = {"UpstreamMilliseconds": "Milliseconds", "SecondsPaid": "Seconds"}


class Metrics:
    """Writes metrics to `out`. Outside Lambda, `out` is None, and metrics are discarded."""

    def __init__(self, out: TextIO | None, namespace: str = "Steno") -> None:
        self._out = out
        self._namespace = namespace

    def emit(self, code: str = "", **values: float) -> None:
        """Write metrics. Each keyword argument is the name and the value of a metric.

        If an error `code` is given, CloudWatch aggregates the metrics per code and in total.
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
        # Use a single write, so that the output of other threads cannot split the line.
        self._out.write(json.dumps(record) + "\n")
        self._out.flush()
