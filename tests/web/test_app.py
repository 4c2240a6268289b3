"""app.py: the routes, who may call them, and what every answer looks like."""

import threading
from datetime import date

import anyio
import httpx2
import pytest

from tests.conftest import app, serving
from tests.false_upstream import FalseUpstream, heard, refused
from tests.samples import recording

JSON_ROUTE, OPENAI_ROUTE = "/api/transcribe", "/v1/audio/transcriptions"
SEGMENTS = [{"id": 0, "start": 0.096, "end": 1.472, "text": " Ever tried.", "avg_logprob": -0.2}]


def timed(text="Ever tried."):
    return heard(text, language="english", duration=3.0, segments=SEGMENTS)


# Answers


def test_json_is_the_transcript_and_nothing_else(client, webm):
    answer = client().post(JSON_ROUTE, files={"file": webm})
    assert answer.json() == {"transcript": "Ever tried."}
    assert answer.headers["Steno-Model"] == "gpt-transcribe"


@pytest.mark.parametrize("route", [JSON_ROUTE, OPENAI_ROUTE])
def test_text_is_the_words_and_a_newline(client, webm, route):
    answer = client().post(route, files={"file": webm}, data={"response_format": "text"})
    assert answer.text == "Ever tried.\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["Steno-Model"] == "gpt-transcribe"


@pytest.mark.parametrize("route", [JSON_ROUTE, OPENAI_ROUTE])
@pytest.mark.parametrize(
    ("response_format", "text"),
    [
        ("srt", "1\n00:00:00,096 --> 00:00:01,472\nEver tried.\n"),
        ("vtt", "WEBVTT\n\n00:00:00.096 --> 00:00:01.472\nEver tried.\n"),
    ],
)
def test_subtitles_come_from_a_model_that_gives_times(client, webm, route, response_format, text):
    form = {"model": "whisper-1", "response_format": response_format}
    answer = client(FalseUpstream(timed())).post(route, files={"file": webm}, data=form)
    assert answer.text == text
    assert answer.headers["Steno-Model"] == "whisper-1"


def test_verbose_json_tells_all_that_is_known(client, webm):
    form = {"model": "whisper-1", "response_format": "verbose_json"}
    answer = client(FalseUpstream(timed())).post(JSON_ROUTE, files={"file": webm}, data=form)
    assert answer.json() == {
        "transcript": "Ever tried.",
        "language": "english",
        "duration": 3.0,
        "segments": [{"id": 0, "start": 0.096, "end": 1.472, "text": " Ever tried."}],
        "no_speech": False,
        "model": "whisper-1",
    }


def test_silence_is_an_empty_transcript(client, webm):
    form = {"model": "whisper-1", "response_format": "verbose_json"}
    answer = (
        client(FalseUpstream(heard("", segments=[])))
        .post(JSON_ROUTE, files={"file": webm}, data=form)
        .json()
    )
    assert (answer["transcript"], answer["no_speech"], answer["segments"]) == ("", True, [])


def test_the_openai_route_answers_with_the_upstreams_own_body(client, webm):
    usage = {"type": "duration", "seconds": 3}
    http = client(FalseUpstream(heard("Ever tried.", logprobs=[{"token": "Ever"}]), timed()))
    form = {"model": "gpt-4o-transcribe", "include[]": "logprobs"}
    json_answer = http.post(OPENAI_ROUTE, files={"file": webm}, data=form)
    assert json_answer.json() == {
        "text": "Ever tried.",
        "usage": usage,
        "logprobs": [{"token": "Ever"}],
    }
    form = {"model": "whisper-1", "response_format": "verbose_json"}
    verbose = http.post(OPENAI_ROUTE, files={"file": webm}, data=form).json()
    assert verbose["segments"] == SEGMENTS
    assert verbose["usage"] == usage


def test_the_openai_route_makes_verbose_json_of_what_a_speaker_model_says(client, webm):
    segments = [{"id": "seg_0", "start": 0.0, "end": 1.4, "text": "Ever tried.", "speaker": "A"}]
    form = {"model": "gpt-4o-transcribe-diarize", "response_format": "verbose_json"}
    answer = client(FalseUpstream(heard("Ever tried.", segments=segments))).post(
        OPENAI_ROUTE, files={"file": webm}, data=form
    )
    assert answer.json() == {
        "task": "transcribe",
        "language": "",
        "duration": 3.0,
        "text": "Ever tried.",
        "segments": [{"id": 0, "start": 0.0, "end": 1.4, "text": "Ever tried.", "speaker": "A"}],
    }


def test_the_options_reach_the_upstream(client, webm):
    upstream = FalseUpstream()
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


def test_the_setting_selects_the_model_and_a_request_may_choose_another(client, webm):
    upstream = FalseUpstream()
    http = client(upstream, whisper_model="whisper-1")
    http.post(JSON_ROUTE, files={"file": webm})
    http.post(JSON_ROUTE, files={"file": webm}, data={"model": "gpt-4o-transcribe"})
    assert [call.fields["model"] for call in upstream.calls] == [
        ["whisper-1"],
        ["gpt-4o-transcribe"],
    ]


def test_in_2028_a_client_with_whisper_1_written_into_it_still_gets_its_words(client, webm):
    upstream = FalseUpstream()
    http = client(upstream, today=date(2028, 5, 1), whisper_model="whisper-1")
    answer = http.post(
        OPENAI_ROUTE, files={"file": webm}, data={"model": "whisper-1", "language": "en"}
    )
    assert answer.json()["text"] == "Ever tried."
    assert answer.headers["Steno-Model"] == "gpt-transcribe"
    assert upstream.calls[0].fields["model"] == ["gpt-transcribe"]
    assert upstream.calls[0].fields["languages[]"] == ["en"]
    health = http.get("/api/health").json()
    assert health["model"] == "gpt-transcribe"
    assert "answers for it" in health["warning"]
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["gpt-transcribe"]


def test_a_model_near_its_end_warns_once_at_start_and_in_health(client, webm, caplog):
    http = client(whisper_model="whisper-1")
    http.post(JSON_ROUTE, files={"file": webm})
    http.post(JSON_ROUTE, files={"file": webm})
    assert caplog.text.count("OpenAI shuts whisper-1 down on 2027-02-26") == 1
    health = http.get("/api/health").json()
    assert (health["model"], health["shutdown_date"]) == ("whisper-1", "2027-02-26")
    assert "WHISPER_MODEL=gpt-transcribe" in health["warning"]


def test_health_and_config_tell_a_client_what_it_needs(client):
    http = client(max_audio_bytes=4_500_000)
    assert http.get("/api/health").json() == {"status": "ok", "model": "gpt-transcribe"}
    assert http.get("/api/config").json() == {
        "direct_max_bytes": 4_500_000,
        "upload_max_bytes": None,
        "model": "gpt-transcribe",
        "auth": "open",
    }


def test_the_models_are_listed_in_openais_shape(client):
    listed = client().get("/v1/models").json()
    assert listed["object"] == "list"
    assert "whisper-1" in [model["id"] for model in listed["data"]]


# Refusals


def test_a_problem_is_as_rfc_9457_has_it(client):
    answer = client().post(JSON_ROUTE, files={"file": b"<html>"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Unsupported Media Type",
        "status": 415,
        "detail": "The file is text (a web page, JSON, a playlist, or a name without curl's `@`), not a recording.",
        "code": "unsupported_media",
        "request_id": answer.headers["x-request-id"],
    }
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("content", "form", "status", "code"),
    [
        (b"", {}, 422, "empty_recording"),
        (b"x" * 1000, {}, 415, "unsupported_media"),
        ("aac", {}, 415, "unsupported_media"),
        ("webm", {"model": "whisper-9"}, 422, "invalid_option"),
        ("webm", {"response_format": "srt"}, 422, "invalid_option"),
        ("webm", {"stream": "true"}, 422, "invalid_option"),
        ("webm", {"unheard_of": "1"}, 422, "invalid_option"),
        ("webm", {"keywords[x][y]": "1"}, 422, "invalid_option"),
        (b"\0" * 200_001, {}, 413, "recording_too_large"),
    ],
)
def test_what_is_refused_never_reaches_the_upstream(client, content, form, status, code):
    upstream = FalseUpstream()
    http = client(upstream, max_audio_bytes=200_000)
    content = recording(content) if isinstance(content, str) else content
    answer = http.post(JSON_ROUTE, files={"file": content}, data=form)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    in_openai_shape = http.post(
        OPENAI_ROUTE, files={"file": content}, data={"model": "gpt-transcribe", **form}
    )
    assert (in_openai_shape.status_code, in_openai_shape.json()["error"]["code"]) == (status, code)
    assert upstream.calls == []


@pytest.mark.parametrize(
    "form",
    [
        {"include[]": "logprobs", "model": "gpt-4o-transcribe"},
        {
            "timestamp_granularities[]": "word",
            "model": "whisper-1",
            "response_format": "verbose_json",
        },
        {"response_format": "diarized_json", "model": "gpt-4o-transcribe-diarize"},
    ],
)
def test_what_the_short_route_has_no_place_for_is_refused_there_before_it_is_paid(
    client, webm, form
):
    upstream = FalseUpstream()
    answer = client(upstream).post(JSON_ROUTE, files={"file": webm}, data=form)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")
    assert upstream.calls == []


def test_options_in_the_address_are_refused_and_not_overlooked(client, webm):
    answer = client().post(f"{JSON_ROUTE}?language=de", files={"file": webm})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_recording_that_needs_another_way_says_so(client):
    detail = client().post(JSON_ROUTE, files={"file": recording("amr")}).json()["detail"]
    assert "AMR" in detail
    assert "WebM" in detail


def test_a_recording_too_large_is_told_the_limit(client):
    answer = client(max_audio_bytes=10).post(JSON_ROUTE, files={"file": bytes(11)})
    assert "10 bytes" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (refused(400), 422, "unreadable_recording"),
        (refused(401), 502, "upstream_credentials"),
        (refused(403), 502, "upstream_credentials"),
        (refused(404), 502, "upstream_model"),
        (refused(413), 413, "recording_too_large"),
        (refused(429, "insufficient_quota"), 502, "upstream_quota"),
        (refused(502), 502, "upstream_failed"),
        (refused(429, x_should_retry="false", retry_after="17"), 503, "upstream_busy"),
        (httpx2.ReadTimeout("slow"), 504, "upstream_timeout"),
        (httpx2.Response(200, text="garbage"), 502, "upstream_failed"),
    ],
)
def test_every_failure_of_the_upstream_has_its_answer(client, webm, reply, status, code):
    answer = client(FalseUpstream(reply)).post(JSON_ROUTE, files={"file": webm})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers.get("Retry-After") == ("17" if code == "upstream_busy" else None)


def test_an_upstream_that_hangs_is_a_504_at_the_deadline(client, webm):
    release = threading.Event()

    def hang(_request):
        release.wait(10)
        return heard("too late")

    http = client(FalseUpstream(hang), request_deadline_seconds=0.2)
    assert http.post(JSON_ROUTE, files={"file": webm}).json()["code"] == "upstream_timeout"
    release.set()


def test_openais_shape_names_the_option_and_tells_the_sdk_whether_to_try_again(client, webm):
    http = client(
        FalseUpstream(refused(429, "insufficient_quota"), *[refused(503, retry_after="0")] * 3)
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


def test_a_wrong_address_or_method_is_a_problem_too(client):
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


def test_a_bug_of_ours_is_a_problem_without_its_inside(client, webm):
    def stumble(_request):
        raise RuntimeError("sk-secret inside")

    http = client(FalseUpstream(stumble, stumble))
    page = {"Origin": "http://localhost:3000"}
    answer = http.post(JSON_ROUTE, files={"file": webm}, headers=page)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert http.post(OPENAI_ROUTE, files={"file": webm}).headers["x-should-retry"] == "false"


def test_the_key_is_in_no_log_and_no_error(client, webm, caplog):
    caplog.set_level("DEBUG")
    http = client(
        FalseUpstream(refused(401), httpx2.ConnectError("no"), refused(500, retry_after="0"))
    )
    texts = [http.post(JSON_ROUTE, files={"file": webm}).text for _ in range(2)]
    assert "sk-test-key" not in caplog.text + "".join(texts)


# Who may call


@pytest.mark.parametrize("route", [JSON_ROUTE, OPENAI_ROUTE])
@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer wrong", "Bearer", "Basic dDp0", "Bearer open-sesame2", "Bearer \xfc"],
)
def test_without_the_token_nothing_is_transcribed(client, webm, route, authorization):
    upstream = FalseUpstream()
    http = client(upstream, auth="token", access_token="open-sesame")
    headers = {"Authorization": authorization.encode("latin-1")} if authorization else {}
    answer = http.post(route, files={"file": webm}, headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "unauthorized" in answer.text
    assert upstream.calls == []


@pytest.mark.parametrize("route", [JSON_ROUTE, OPENAI_ROUTE])
def test_with_the_token_it_is(client, webm, route):
    http = client(auth="token", access_token="open-sesame")
    headers = {"Authorization": "Bearer open-sesame"}
    assert http.post(route, files={"file": webm}, headers=headers).status_code == 200
    assert http.get("/v1/models").status_code == 401


def test_health_config_and_the_documents_are_open(client):
    http = client(auth="token", access_token="open-sesame")
    for route in ("/api/health", "/api/config", "/docs", "/openapi.json"):
        assert http.get(route).status_code == 200


def test_jwt_without_the_gateways_word_is_nobody(client, webm):
    http = client(auth="jwt", aws_lambda_function_name="steno-api")
    assert http.post(JSON_ROUTE, files={"file": webm}).status_code == 401


# CORS


def test_cors_is_for_exactly_the_origins_in_the_settings(client, webm):
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
        refusal = http.options(JSON_ROUTE, headers={"Origin": stranger, **preflight})
        assert "Access-Control-Allow-Origin" not in refusal.headers
        answer = http.post(JSON_ROUTE, files={"file": webm}, headers={"Origin": stranger})
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_strangers_page_cannot_spend_the_owners_money_where_no_token_is_asked(client, webm):
    """A form needs no preflight: CORS alone would only keep the page from reading what it made the owner pay."""
    upstream = FalseUpstream()
    http = client(upstream)
    http.headers["Host"] = "127.0.0.1:8000"
    for origin, status in (
        ("https://evil.example", 401),
        ("null", 401),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8000", 200),  # a page of the server's own
    ):
        assert (
            http.post(JSON_ROUTE, files={"file": webm}, headers={"Origin": origin}).status_code
            == status
        )
    assert len(upstream.calls) == 2


def test_the_openai_sdk_in_a_browser_may_send_its_own_headers(client):
    headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    wanted = "authorization,x-stainless-arch,x-stainless-lang,x-stainless-retry-count"
    answer = client().options(
        OPENAI_ROUTE, headers={**headers, "Access-Control-Request-Headers": wanted}
    )
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Headers"] == wanted


def test_a_browser_may_read_errors_and_the_headers_that_tell_it_what_to_do(client):
    answer = client().post(
        JSON_ROUTE, files={"file": b""}, headers={"Origin": "http://localhost:3000"}
    )
    assert answer.status_code == 422
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert answer.headers["Access-Control-Expose-Headers"] == (
        "Location, Retry-After, Steno-Model, x-request-id, x-should-retry"
    )


# The documents


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
        ("/api/transcriptions/{identity}/transcript", "get"),
    ):
        refusal = document["paths"][path][method]["responses"]["422"]["content"]
        assert list(refusal) == ["application/problem+json"]


# The event loop


@pytest.mark.anyio
async def test_health_answers_while_calls_are_waiting_for_the_upstream(webm):
    release, arrived = threading.Event(), threading.Event()

    def hold(_request):
        arrived.set()
        assert release.wait(20)
        return heard("Ever tried.")

    with serving(app(FalseUpstream(hold))) as url:
        async with (
            httpx2.AsyncClient(base_url=url, timeout=20) as http,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(lambda: http.post(JSON_ROUTE, files={"file": webm}))
            await anyio.to_thread.run_sync(arrived.wait)
            assert (await http.get("/api/health")).status_code == 200
            release.set()
