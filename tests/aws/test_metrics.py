"""metrics.py: what CloudWatch counts of requests, parts and payments, and nothing that was said."""

import io
import json

from starlette.testclient import TestClient

from handler.aws.metrics import Metrics
from handler.jobs.store import Jobs
from handler.services import build_services
from handler.web.app import create_app
from tests.conftest import TODAY, settings
from tests.false_upstream import FalseUpstream, refused
from tests.place import Clock, Place
from tests.samples import recording


def told(out):
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_request_tells_what_was_paid_and_how_long_the_service_took_and_no_word():
    out = io.StringIO()
    services = build_services(
        settings(), transport=FalseUpstream(), today=lambda: TODAY, metrics=Metrics(out)
    )
    with TestClient(create_app(services.settings, services)) as http:
        http.post(
            "/api/transcribe", files={"file": recording("webm")}, data={"prompt": "a secret prompt"}
        )
    (line,) = told(out)
    assert line["SecondsPaid"] == 3
    assert line["UpstreamMilliseconds"] >= 0
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("Steno", [[]])
    assert {"Name": "SecondsPaid", "Unit": "Seconds"} in directive["Metrics"]
    assert "Ever" not in out.getvalue()
    assert "secret" not in out.getvalue()


def test_failures_are_counted_by_their_code():
    out = io.StringIO()
    upstream = FalseUpstream(refused(429, "insufficient_quota"))
    services = build_services(
        settings(), transport=upstream, today=lambda: TODAY, metrics=Metrics(out)
    )
    with TestClient(create_app(services.settings, services)) as http:
        http.post("/api/transcribe", files={"file": recording("webm")})
    assert [(line["Code"], line["Failures"]) for line in told(out)] == [("upstream_quota", 1)]
    assert told(out)[0]["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[], ["Code"]]


def test_a_job_tells_its_parts_and_its_end(aws):
    place = Place(aws, FalseUpstream(), metrics=Metrics(out := io.StringIO()))
    place.work(place.about(place.upload(recording("mp3"))))
    place.work(place.about(place.upload(b"<html>")))
    names = [{name for name in line if name != "_aws"} for line in told(out)]
    assert names == [
        {"UpstreamMilliseconds", "SecondsPaid"},
        {"Parts"},
        {"JobsCompleted"},
        {"Code", "Failures"},
        {"JobsFailed"},
    ]


def test_a_stalled_job_is_counted_each_time_that_a_client_asks_for_it(aws):
    clock = Clock()
    place = Place(aws, jobs=Jobs(settings(**aws), clock), metrics=Metrics(out := io.StringIO()))
    identity = place.upload(recording("webm"))
    place.job(identity)
    assert out.getvalue() == ""
    clock.now += 86_400 + 1
    place.job(identity)
    assert [line["JobsStalled"] for line in told(out)] == [1]


def test_each_environment_has_figures_of_its_own():
    out = io.StringIO()
    Metrics(out, "steno-dev").emit(Parts=1)
    assert told(out)[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "steno-dev"


def test_a_machine_that_nobody_watches_is_told_nothing(capsys):
    Metrics(None).emit(Failures=1)
    assert build_services(settings()).metrics.emit(Failures=1) is None
    assert capsys.readouterr().out == ""
