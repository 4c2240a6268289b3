"""Tests of metrics.py: metrics count requests, parts and billed seconds, but contain no text."""

import io
import json

from starlette.testclient import TestClient

from handler.aws.metrics import Metrics
from handler.jobs.store import Jobs
from handler.services import build_services
from handler.web.app import create_app
from tests.conftest import TODAY, settings
from tests.fake_upstream import FakeUpstream, error_response
from tests.harness import Clock, Harness
from tests.samples import recording


def metric_lines(out):
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_request_emits_billed_seconds_and_upstream_time_but_no_text():
    out = io.StringIO()
    services = build_services(
        settings(), transport=FakeUpstream(), today=lambda: TODAY, metrics=Metrics(out)
    )
    with TestClient(create_app(services.settings, services)) as http:
        http.post(
            "/api/transcribe", files={"file": recording("webm")}, data={"prompt": "a secret prompt"}
        )
    (line,) = metric_lines(out)
    assert line["SecondsPaid"] == 3
    assert line["UpstreamMilliseconds"] >= 0
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("Steno", [[]])
    assert {"Name": "SecondsPaid", "Unit": "Seconds"} in directive["Metrics"]
    assert "Ever" not in out.getvalue()
    assert "secret" not in out.getvalue()


def test_failures_are_counted_by_their_code():
    out = io.StringIO()
    upstream = FakeUpstream(error_response(429, "insufficient_quota"))
    services = build_services(
        settings(), transport=upstream, today=lambda: TODAY, metrics=Metrics(out)
    )
    with TestClient(create_app(services.settings, services)) as http:
        http.post("/api/transcribe", files={"file": recording("webm")})
    assert [(line["Code"], line["Failures"]) for line in metric_lines(out)] == [
        ("upstream_quota", 1)
    ]
    assert metric_lines(out)[0]["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[], ["Code"]]


def test_a_job_emits_its_parts_and_its_result(aws):
    harness = Harness(aws, FakeUpstream(), metrics=Metrics(out := io.StringIO()))
    harness.run_worker(harness.upload_record(harness.upload(recording("mp3"))))
    harness.run_worker(harness.upload_record(harness.upload(b"<html>")))
    names = [{name for name in line if name != "_aws"} for line in metric_lines(out)]
    assert names == [
        {"UpstreamMilliseconds", "SecondsPaid"},
        {"Parts"},
        {"JobsCompleted"},
        {"Code", "Failures"},
        {"JobsFailed"},
    ]


def test_a_stalled_job_is_counted_each_time_it_is_read(aws):
    clock = Clock()
    harness = Harness(aws, jobs=Jobs(settings(**aws), clock), metrics=Metrics(out := io.StringIO()))
    job_id = harness.upload(recording("webm"))
    harness.job(job_id)
    assert out.getvalue() == ""
    clock.now += 86_400 + 1
    harness.job(job_id)
    assert [line["JobsStalled"] for line in metric_lines(out)] == [1]


def test_each_environment_has_its_own_metrics_namespace():
    out = io.StringIO()
    Metrics(out, "steno-dev").emit(Parts=1)
    assert metric_lines(out)[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "steno-dev"


def test_without_an_output_no_metrics_are_written(capsys):
    Metrics(None).emit(Failures=1)
    assert build_services(settings()).metrics.emit(Failures=1) is None
    assert capsys.readouterr().out == ""
