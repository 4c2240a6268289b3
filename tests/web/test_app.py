"""Tests of app.py: routes, authentication, CORS and the format of every response."""

import threading
from datetime import date

import anyio
import httpx2
import pytest

from tests.conftest import app, serving
from tests.fake_upstream import FakeUpstream, error_response, transcript_response
from tests.samples import recording

JSON_ROUTE, OPENAI_ROUTE = "/api/transcribe", "/v1/audio/transcriptions"
SEGMENTS = [{"id": 0, "start": 0.096, "end": 1.472, "text": " Ever tried.", "avg_logprob": -0.2}]


def timed(text="Ever tried."):
    return transcript_response(text, language="english", duration=3.0, segments=SEGMENTS)


# Responses


def test_json_contains_only_the_transcript(client, webm):
    response = client().post(JSON_ROUTE, files={"file": webm})
    assert response.json() == {"transcript": "Ever tried."}
    assert response.headers["Steno-Model"] == "gpt-transcribe"


@pytest.mark.parametrize("route", [JSON_ROUTE, OPENAI_ROUTE])
def test_text_ends_with_a_newline(client, webm, route):
    response = client().post(route, files={"file": webm}, data={"response_format": "text"})
    assert response.text == "Ever tried.\n"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["Steno-Model"] == "gpt-transcribe"


@pytest.mark.parametrize("route", [JSON_ROUTE, OPENAI_ROUTE])
@pytest.mark.parametrize(
    ("response_format", "text"),
    [
        ("srt", "1\n00:00:00,096 --> 00:00:01,472\nEver tried.\n"),
        ("vtt", "WEBVTT\n\n00:00:00.096 --> 00:00:01.472\nEver tried.\n"),
    ],
)
def test_subtitles_have_the_timestamps_of_the_model(client, webm, route, response_format, text):
    form = {"model": "whisper-1", "response_format": response_format}
    response = client(FakeUpstream(timed())).post(route, files={"file": webm}, data=form)
    assert response.text == text
    assert response.headers["Steno-Model"] == "whisper-1"


def test_verbose_json_has_all_fields(client, webm):
    form = {"model": "whisper-1", "response_format": "verbose_json"}
    response = client(FakeUpstream(timed())).post(JSON_ROUTE, files={"file": webm}, data=form)
    assert response.json() == {
        "transcript": "Ever tried.",
        "language": "english",
        "duration": 3.0,
        "segments": [{"id": 0, "start": 0.096, "end": 1.472, "text": " Ever tried."}],
        "no_speech": False,
        "model": "whisper-1",
    }


def test_silence_is_an_empty_transcript(client, webm):
    form = {"model": "whisper-1", "response_format": "verbose_json"}
    response = (
        client(FakeUpstream(transcript_response("", segments=[])))
        .post(JSON_ROUTE, files={"file": webm}, data=form)
        .json()
    )
    assert (response["transcript"], response["no_speech"], response["segments"]) == ("", True, [])


def test_the_openai_route_returns_the_upstream_body(client, webm):
    usage = {"type": "duration", "seconds": 3}
    http = client(
        FakeUpstream(transcript_response("Ever tried.", logprobs=[{"token": "Ever"}]), timed())
    )
    form = {"model": "gpt-4o-transcribe", "include[]": "logprobs"}
    json_response = http.post(OPENAI_ROUTE, files={"file": webm}, data=form)
    assert json_response.json() == {
        "text": "Ever tried.",
        "usage": usage,
        "logprobs": [{"token": "Ever"}],
    }
    form = {"model": "whisper-1", "response_format": "verbose_json"}
    verbose = http.post(OPENAI_ROUTE, files={"file": webm}, data=form).json()
    assert verbose["segments"] == SEGMENTS
    assert verbose["usage"] == usage


def test_the_openai_route_converts_speaker_segments_to_verbose_json(client, webm):
    segments = [{"id": "seg_0", "start": 0.0, "end": 1.4, "text": "Ever tried.", "speaker": "A"}]
    form = {"model": "gpt-4o-transcribe-diarize", "response_format": "verbose_json"}
    response = client(FakeUpstream(transcript_response("Ever tried.", segments=segments))).post(
        OPENAI_ROUTE, files={"file": webm}, data=form
    )
    body = response.json()
    (segment,) = body.pop("segments")
    assert {name: segment[name] for name in segments[0]} == {**segments[0], "id": 0}
    assert body == {
        "task": "transcribe",
        "language": "",
        "duration": 3.0,
        "text": "Ever tried.",
        "usage": {"type": "duration", "seconds": 3},
    }


def test_options_are_sent_to_the_upstream(client, webm):
    upstream = FakeUpstream()
    form = {
        "language": "en-US",
        "keywords": ["Steno", "Mangum"],
        "prompt": "Names",
        "temperature": "0",
    }
    assert client(upstream).post(JSON_ROUTE, files={"file": webm}, data=form).status_code == 200
    assert upstream.calls[0].fields == {
        "model": ["gpt-transcribe"],
        "response_format": ["json"],
        "languages[]": ["en"],
        "keywords[]": ["Steno", "Mangum"],
        "prompt": ["Names"],
        "temperature": ["0.0"],
    }


# Models


def test_a_request_may_select_another_model_than_the_setting(client, webm):
    upstream = FakeUpstream()
    http = client(upstream, whisper_model="whisper-1")
    http.post(JSON_ROUTE, files={"file": webm})
    http.post(JSON_ROUTE, files={"file": webm}, data={"model": "gpt-4o-transcribe"})
    assert [call.fields["model"] for call in upstream.calls] == [
        ["whisper-1"],
        ["gpt-4o-transcribe"],
    ]


def test_a_client_that_requests_the_retired_whisper_1_gets_a_transcript(client, webm):
    upstream = FakeUpstream()
    http = client(upstream, today=date(2028, 5, 1), whisper_model="whisper-1")
    response = http.post(
        OPENAI_ROUTE, files={"file": webm}, data={"model": "whisper-1", "language": "en"}
    )
    assert response.json()["text"] == "Ever tried."
    assert response.headers["Steno-Model"] == "gpt-transcribe"
    assert upstream.calls[0].fields["model"] == ["gpt-transcribe"]
    assert upstream.calls[0].fields["languages[]"] == ["en"]
    health = http.get("/api/health").json()
    assert health["model"] == "gpt-transcribe"
    assert "instead" in health["warning"]
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["gpt-transcribe"]


def test_a_model_near_its_shutdown_has_a_warning_at_start_and_in_health(client, webm, caplog):
    http = client(whisper_model="whisper-1")
    http.post(JSON_ROUTE, files={"file": webm})
    http.post(JSON_ROUTE, files={"file": webm})
    assert caplog.text.count("OpenAI will shut down whisper-1 on 2027-02-26") == 1
    health = http.get("/api/health").json()
    assert (health["model"], health["shutdown_date"]) == ("whisper-1", "2027-02-26")
    assert "WHISPER_MODEL=gpt-transcribe" in health["warning"]


def test_health_and_config_have_the_data_for_clients(client):
    http = client(max_audio_bytes=4_500_000)
    assert http.get("/api/health").json() == {"status": "ok", "model": "gpt-transcribe"}
    assert http.get("/api/config").json() == {
        "direct_max_bytes": 4_500_000,
        "upload_max_bytes": None,
        "model": "gpt-transcribe",
        "auth": "open",
    }


def test_a_model_is_described_as_in_the_list(client):
    http = client()
    for listed in http.get("/v1/models").json()["data"]:
        assert http.get(f"/v1/models/{listed['id']}").json() == listed
    response = http.get("/v1/models/whisper-2")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert "GET /v1/models" in response.json()["error"]["message"]


def test_a_model_of_another_upstream_is_found_by_its_full_name(client):
    http = client(openai_base_url="http://127.0.0.1:1/v1", whisper_model="org/any-model")
    assert http.get("/v1/models/org/any-model").json()["id"] == "org/any-model"
    assert http.get("/v1/models/not%20a%20name").status_code == 404


def test_a_retired_model_is_not_found(client):
    http = client(today=date(2027, 2, 27))
    assert http.get("/v1/models/whisper-1").status_code == 404
    assert http.get("/v1/models/gpt-transcribe").status_code == 200


def test_the_models_are_listed_in_openais_shape(client):
    listed = client().get("/v1/models").json()
    assert listed["object"] == "list"
    assert "whisper-1" in [model["id"] for model in listed["data"]]


# Errors


def test_an_error_is_a_problem_of_rfc_9457(client):
    response = client().post(JSON_ROUTE, files={"file": b"<html>"})
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "http://testserver/errors#unsupported_media",
        "title": "Unsupported Media Type",
        "status": 415,
        "detail": "The file is text (for example a web page, JSON or a playlist), not a recording."
        " Send an audio or video file. With curl, put `@` before the file name.",
        "code": "unsupported_media",
        "request_id": response.headers["x-request-id"],
    }
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("content", "form", "status", "code"),
    [
        (b"", {}, 422, "empty_recording"),
        (b"x" * 1000, {}, 415, "unsupported_media"),
        ("aac", {}, 415, "unsupported_media"),
        ("webm", {"model": "whisper-9"}, 422, "invalid_option"),
        ("webm", {"response_format": "srt"}, 422, "invalid_option"),
        ("webm", {"stream": "perhaps"}, 422, "invalid_option"),
        ("webm", {"unheard_of": "1"}, 422, "invalid_option"),
        ("webm", {"keywords[x][y]": "1"}, 422, "invalid_option"),
        (b"\0" * 200_001, {}, 413, "recording_too_large"),
    ],
)
def test_an_invalid_request_is_not_sent_to_the_upstream(client, content, form, status, code):
    upstream = FakeUpstream()
    http = client(upstream, max_audio_bytes=200_000)
    content = recording(content) if isinstance(content, str) else content
    response = http.post(JSON_ROUTE, files={"file": content}, data=form)
    assert (response.status_code, response.json()["code"]) == (status, code)
    in_openai_shape = http.post(
        OPENAI_ROUTE, files={"file": content}, data={"model": "gpt-transcribe", **form}
    )
    assert (in_openai_shape.status_code, in_openai_shape.json()["error"]["code"]) == (status, code)
    assert upstream.calls == []


@pytest.mark.parametrize(
    "form",
    [
        {"include[]": "logprobs", "model": "gpt-4o-transcribe"},
        {"response_format": "diarized_json", "model": "gpt-4o-transcribe-diarize"},
    ],
)
def test_options_that_the_json_route_cannot_return_are_rejected_before_billing(client, webm, form):
    upstream = FakeUpstream()
    response = client(upstream).post(JSON_ROUTE, files={"file": webm}, data=form)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_option")
    assert upstream.calls == []


def test_options_in_the_query_string_are_rejected(client, webm):
    response = client().post(f"{JSON_ROUTE}?language=de", files={"file": webm})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


def test_an_unsupported_format_is_rejected_with_the_supported_formats(client):
    detail = client().post(JSON_ROUTE, files={"file": recording("amr")}).json()["detail"]
    assert "AMR" in detail
    assert "WebM" in detail


def test_the_error_for_a_large_recording_contains_the_limit(client):
    response = client(max_audio_bytes=10).post(JSON_ROUTE, files={"file": bytes(11)})
    assert "10 bytes" in response.json()["detail"]


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (error_response(400), 422, "unreadable_recording"),
        (error_response(401), 502, "upstream_credentials"),
        (error_response(403), 502, "upstream_credentials"),
        (error_response(404), 502, "upstream_model"),
        (error_response(413), 413, "recording_too_large"),
        (error_response(429, "insufficient_quota"), 502, "upstream_quota"),
        (error_response(502), 502, "upstream_failed"),
        (error_response(429, x_should_retry="false", retry_after="17"), 503, "upstream_busy"),
        (httpx2.ReadTimeout("slow"), 504, "upstream_timeout"),
        (httpx2.Response(200, text="garbage"), 502, "upstream_failed"),
    ],
)
def test_every_upstream_failure_has_its_error(client, webm, reply, status, code):
    response = client(FakeUpstream(reply)).post(JSON_ROUTE, files={"file": webm})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers.get("Retry-After") == ("17" if code == "upstream_busy" else None)


def test_an_upstream_that_hangs_is_a_504_at_the_deadline(client, webm):
    release = threading.Event()

    def hang(_request):
        release.wait(10)
        return transcript_response("too late")

    http = client(FakeUpstream(hang), request_deadline_seconds=0.2)
    assert http.post(JSON_ROUTE, files={"file": webm}).json()["code"] == "upstream_timeout"
    release.set()


def test_openai_errors_name_the_option_and_whether_to_retry(client, webm):
    http = client(
        FakeUpstream(
            error_response(429, "insufficient_quota"), *[error_response(503, retry_after="0")] * 3
        )
    )
    bad_option = http.post(
        OPENAI_ROUTE, files={"file": webm}, data={"model": "whisper-1", "keywords": "x"}
    )
    assert bad_option.json()["error"]["type"] == "invalid_request_error"
    assert bad_option.json()["error"]["param"] == "keywords"
    assert bad_option.json()["error"]["code"] == "invalid_option"
    no_credit = http.post(OPENAI_ROUTE, files={"file": webm}, data={"model": "whisper-1"})
    assert (no_credit.json()["error"]["type"], no_credit.headers["x-should-retry"]) == (
        "server_error",
        "false",
    )
    busy = http.post(OPENAI_ROUTE, files={"file": webm}, data={"model": "whisper-1"})
    assert (busy.status_code, busy.headers["x-should-retry"], busy.headers["Retry-After"]) == (
        503,
        "true",
        "0",
    )


def test_a_wrong_path_or_method_is_a_problem(client):
    http = client()
    assert (http.get("/nowhere").status_code, http.get("/nowhere").json()["code"]) == (
        404,
        "not_found",
    )
    wrong_method = http.get(JSON_ROUTE)
    assert (wrong_method.status_code, wrong_method.json()["code"]) == (405, "method_not_allowed")
    assert wrong_method.headers["Allow"] == "POST"
    assert http.post(f"{JSON_ROUTE}/").json()["code"] == "not_found"
    assert http.get("/v1/nowhere").json()["error"]["code"] == "not_found"


def test_an_internal_error_does_not_reveal_its_cause(client, webm):
    def fail(_request):
        raise RuntimeError("sk-secret inside")

    http = client(FakeUpstream(fail, fail))
    page = {"Origin": "http://localhost:3000"}
    response = http.post(JSON_ROUTE, files={"file": webm}, headers=page)
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert http.post(OPENAI_ROUTE, files={"file": webm}).headers["x-should-retry"] == "false"


def test_logs_and_errors_do_not_contain_the_key(client, webm, caplog):
    caplog.set_level("DEBUG")
    http = client(
        FakeUpstream(
            error_response(401), httpx2.ConnectError("no"), error_response(500, retry_after="0")
        )
    )
    texts = [http.post(JSON_ROUTE, files={"file": webm}).text for _ in range(2)]
    assert "sk-test-key" not in caplog.text + "".join(texts)


# Authentication


@pytest.mark.parametrize("route", [JSON_ROUTE, OPENAI_ROUTE])
@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer wrong", "Bearer", "Basic dDp0", "Bearer open-sesame2", "Bearer \xfc"],
)
def test_without_the_token_nothing_is_transcribed(client, webm, route, authorization):
    upstream = FakeUpstream()
    http = client(upstream, auth="token", access_token="open-sesame")
    headers = {"Authorization": authorization.encode("latin-1")} if authorization else {}
    response = http.post(route, files={"file": webm}, headers=headers)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "unauthorized" in response.text
    assert upstream.calls == []


@pytest.mark.parametrize("route", [JSON_ROUTE, OPENAI_ROUTE])
def test_with_the_token_a_recording_is_transcribed(client, webm, route):
    http = client(auth="token", access_token="open-sesame")
    headers = {"Authorization": "Bearer open-sesame"}
    assert http.post(route, files={"file": webm}, headers=headers).status_code == 200
    assert http.get("/v1/models").status_code == 401


def test_health_config_and_api_docs_need_no_token(client):
    http = client(auth="token", access_token="open-sesame")
    for route in ("/api/health", "/api/config", "/docs", "/openapi.json"):
        assert http.get(route).status_code == 200


def test_jwt_without_the_gateways_authorizer_is_unauthorized(client, webm):
    http = client(auth="jwt", aws_lambda_function_name="steno-api")
    assert http.post(JSON_ROUTE, files={"file": webm}).status_code == 401


# CORS


def test_only_configured_origins_are_allowed_by_cors(client, webm):
    http = client(allowed_origins="https://app.example,https://other.example")
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    allowed = http.options(JSON_ROUTE, headers={"Origin": "https://app.example", **preflight})
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example"
    for stranger in (
        "https://evil.example",
        "https://app.example.evil.example",
        "http://app.example",
        "null",
    ):
        response_422 = http.options(JSON_ROUTE, headers={"Origin": stranger, **preflight})
        assert "Access-Control-Allow-Origin" not in response_422.headers
        response = http.post(JSON_ROUTE, files={"file": webm}, headers={"Origin": stranger})
        assert "Access-Control-Allow-Origin" not in response.headers


def test_without_a_token_pages_of_other_origins_cannot_cause_costs(client, webm):
    """Submitting a form needs no preflight request, so CORS alone does not prevent costs."""
    upstream = FakeUpstream()
    http = client(upstream)
    http.headers["Host"] = "127.0.0.1:8000"
    for origin, status in (
        ("https://evil.example", 403),
        ("http://localhost.evil.example:3000", 403),
        ("null", 403),
        ("http://localhost:3000", 200),
        ("http://localhost:5173", 200),
        ("http://127.0.0.1:8000", 200),  # the origin of the server's own page
    ):
        assert (
            http.post(JSON_ROUTE, files={"file": webm}, headers={"Origin": origin}).status_code
            == status
        )
    assert len(upstream.calls) == 3


def test_the_openai_sdk_in_a_browser_may_send_its_own_headers(client):
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    requested_headers = "authorization,x-stainless-arch,x-stainless-lang,x-stainless-retry-count"
    response = client().options(
        OPENAI_ROUTE, headers={**headers, "Access-Control-Request-Headers": requested_headers}
    )
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Headers"] == requested_headers


def test_a_browser_may_read_errors_and_their_headers(client):
    response = client().post(
        JSON_ROUTE, files={"file": b""}, headers={"Origin": "http://localhost:3000"}
    )
    assert response.status_code == 422
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert response.headers["Access-Control-Expose-Headers"] == (
        "Location, Retry-After, Steno-Model, Steno-Timestamps, x-request-id, x-should-retry"
    )


# API documentation


def test_the_openapi_document_describes_the_form_and_the_errors(client):
    document = client().get("/openapi.json").json()
    route = document["paths"]["/api/transcribe"]["post"]
    assert route["requestBody"]["content"]["multipart/form-data"]["schema"] == {
        "$ref": "#/components/schemas/Form"
    }
    form = document["components"]["schemas"]["Form"]
    assert form["required"] == ["file"]
    assert {"file", "model", "language", "prompt", "keywords", "response_format"} <= set(
        form["properties"]
    )
    assert {"200", "401", "413", "415", "422", "502", "503", "504"} <= set(route["responses"])
    assert "application/problem+json" in route["responses"]["415"]["content"]
    assert "$ref" not in str(form)
    assert "diarized_json" not in form["properties"]["response_format"]["enum"]
    assert "409" not in route["responses"]
    assert "401" in document["paths"]["/v1/models"]["get"]["responses"]
    for path, method in (
        ("/api/uploads", "post"),
        ("/api/transcriptions/{id}/transcript", "get"),
    ):
        response_422 = document["paths"][path][method]["responses"]["422"]["content"]
        assert list(response_422) == ["application/problem+json"]


# The event loop


@pytest.mark.anyio
async def test_health_responds_while_upstream_calls_wait(webm):
    release, arrived = threading.Event(), threading.Event()

    def hold(_request):
        arrived.set()
        assert release.wait(20)
        return transcript_response("Ever tried.")

    with serving(app(FakeUpstream(hold))) as url:
        async with (
            httpx2.AsyncClient(base_url=url, timeout=20) as http,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(lambda: http.post(JSON_ROUTE, files={"file": webm}))
            await anyio.to_thread.run_sync(arrived.wait)
            assert (await http.get("/api/health")).status_code == 200
            release.set()
