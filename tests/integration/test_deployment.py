"""Test the stack, with its functions and queues, in a local AWS emulator that enforces IAM."""

import base64
import json
import time
from functools import cache
from uuid import uuid4

import boto3
import httpx2
import openai
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from playwright.sync_api import expect

from tests.browsers.drivers import NO_CHROMIUM, chromium
from tests.browsers.site import TRANSCRIBE, UPLOAD, site, transcribe_until_error
from tests.integration.cloud import deployed_cloud, stored_folders, upload, wait_until_finished
from tests.integration.issuer import Issuer
from tests.openai_clients import JOB, STREAM, run_node_client, text_of
from tests.samples import ASSETS, asset, long_recording, recording

WORDS = "Ever tried. Ever failed."
PROTECTED_ROUTES = (
    ("POST", "/api/transcribe"),
    ("POST", "/api/uploads"),
    ("GET", "/api/transcriptions/x"),
)


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Return the URLs of two sites: one whose origin is allowed, and one whose origin is not."""
    with (
        site(tmp_path_factory.mktemp("site")) as allowed,
        site(tmp_path_factory.mktemp("site")) as foreign,
    ):
        yield allowed, foreign


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, engine_process, sites):
    with deployed_cloud(
        tmp_path_factory.mktemp("deployed"), openai_base_url=engine_process.url, origins=sites[0]
    ) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def token(cloud):
    secret = cloud.client("secretsmanager").get_secret_value(
        SecretId=cloud.secret("ReadAccessToken")
    )
    return {"Authorization": f"Bearer {secret['SecretString']}"}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_without_the_token_every_request_is_rejected(cloud, headers):
    for method, path in PROTECTED_ROUTES:
        response = cloud.http.request(method, path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert cloud.http.get("/api/health").json()["status"] == "ok"


def test_a_recording_in_one_request_is_transcribed(cloud, token):
    response = cloud.http.post(
        "/api/transcribe", headers=token, files={"file": asset("beckett.wav")}
    )
    assert response.json()["transcript"].startswith(WORDS)


@pytest.mark.parametrize(
    ("content", "words", "parts"),
    [
        (asset("endgame_nagg_nell.wav"), "that's a good story", 1),
        (long_recording("ogg", 80), "It was the", 2),
    ],
    ids=["through the express queue", "through the parts queue"],
)
def test_an_upload_goes_through_bucket_queues_and_functions(cloud, token, content, words, parts):
    job_path = upload(cloud, token, content, response_format="srt")
    job = wait_until_finished(cloud, token, job_path)
    assert (job["status"], job["error"]) == ("completed", None)
    assert job["progress"] == {"done": parts, "total": parts}
    assert words in job["transcript"]
    assert "-->" in cloud.http.get(f"{job_path}/transcript?response_format=srt", headers=token).text
    assert stored_folders(cloud) == ["transcripts"]
    assert cloud.http.delete(job_path, headers=token).status_code == 204
    assert stored_folders(cloud) == []


def test_a_direct_request_becomes_a_job_if_the_upstream_rejects_its_container(cloud, token):
    response = cloud.http.post(
        "/api/transcribe", headers=token, files={"file": recording("aac", seconds=8)}
    )
    assert (response.status_code, response.json()["transcript"][: len(WORDS)]) == (200, WORDS)
    assert "requests" not in stored_folders(cloud)


def test_a_part_with_a_truncated_response_is_split_in_half(cloud, token, engine):
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    engine.script({"body": {"text": "cut off", "usage": usage}})
    job = wait_until_finished(cloud, token, upload(cloud, token, long_recording("ogg", 24)))
    assert (job["status"], job["error"]) == ("completed", None)
    assert "It was the" in job["transcript"]
    assert "cut off" not in job["transcript"]
    assert len(engine.calls()) == 3


# Requests from OpenAI's SDKs. Requests of models without timestamps become jobs.


@pytest.mark.parametrize("params", [STREAM, {**JOB, "stream": True}], ids=["request", "job"])
def test_openais_node_sdk_reads_a_stream(cloud, token, npm, params):
    url, path = f"http://{cloud.host}", ASSETS / "beckett.wav"
    api_key = token["Authorization"].removeprefix("Bearer ")
    *events, done, end = run_node_client(npm, url, path, {"params": params}, apiKey=api_key)
    assert text_of(events) == done["text"]
    assert done["text"].startswith(WORDS)
    assert done["usage"] == {"type": "duration", "seconds": 10}
    assert end["headers"]["steno-model"] == params["model"]


@pytest.mark.parametrize("params", [STREAM, {**JOB, "stream": True}], ids=["request", "job"])
def test_openais_python_sdk_reads_a_stream(cloud, token, params):
    with openai.OpenAI(
        base_url=f"{cloud.url}/v1",
        api_key=token["Authorization"].removeprefix("Bearer "),
        default_headers={"Host": cloud.host},
    ) as client:
        stream = client.audio.transcriptions.create(file=ASSETS / "beckett.wav", **params)
        *events, done = [event.to_dict() for event in stream]
    assert text_of(events) == done["text"]
    assert done["text"].startswith(WORDS)
    assert done["usage"] == {"type": "duration", "seconds": 10}


def test_the_job_of_a_dead_letter_fails(cloud, token):
    created = cloud.http.post("/api/uploads", headers=token, json={"size": 10}).json()
    job_path = f"/api/transcriptions/{created['id']}"
    dead_letter = json.dumps({"key": created["upload"]["fields"]["key"]})
    cloud.client("sqs").send_message(QueueUrl=cloud.queues["DeadLetters"], MessageBody=dead_letter)
    job = wait_until_finished(cloud, token, job_path)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")


def test_each_function_can_delete_the_objects_of_a_deleted_job(cloud):
    """An S3 event notification and a dead letter arrive after their jobs were deleted."""
    s3, sqs = cloud.client("s3"), cloud.client("sqs")
    for queue in ("Recordings", "DeadLetters"):
        job_id = uuid4().hex
        keys = [
            f"uploads/{job_id}.webm",
            f"parts/{job_id}/0/0000.flac",
            f"transcripts/{job_id}.json",
        ]
        # Store the upload last, because S3 sends an event notification for it.
        for key in reversed(keys):
            s3.put_object(Bucket=cloud.outputs["BucketName"], Key=key, Body=b"x")
        sqs.send_message(QueueUrl=cloud.queues[queue], MessageBody=json.dumps({"key": keys[0]}))
        deadline = time.monotonic() + 60
        while {"uploads", "parts"} & set(stored_folders(cloud)):
            assert time.monotonic() < deadline, stored_folders(cloud)


def test_a_failed_job_can_be_retried_without_a_new_upload(cloud, token, engine):
    error_reply = {
        "status": 401,
        "body": {"error": {"message": "no", "code": "invalid_api_key"}},
        "times": 2,
    }
    engine.script(error_reply)
    # No other test uses this recording, so its transcript is not in the ledger yet.
    job_path = upload(cloud, token, recording("ogg", "endgame_nagg_nell.wav", 5))
    assert wait_until_finished(cloud, token, job_path)["error"]["code"] == "upstream_credentials"
    engine.script()
    assert cloud.http.post(f"{job_path}/retry", headers=token).status_code == 202
    assert wait_until_finished(cloud, token, job_path)["transcript"].startswith("Do you hear me?")


@pytest.mark.parametrize(
    "changed_fields",
    [
        {"key": "uploads/" + "0" * 32 + ".webm"},
        {"Content-Type": "text/html"},
        {"policy": "e30="},
        {"x-amz-date": "20200101T000000Z"},
    ],
)
def test_the_form_uploads_only_what_it_was_issued_for(cloud, token, changed_fields):
    form = cloud.http.post("/api/uploads", headers=token, json={"size": 10}).json()["upload"]
    response = httpx2.post(
        form["url"], data={**form["fields"], **changed_fields}, files={"file": b"0123456789"}
    )
    assert response.status_code in (400, 403)


class Role:
    """An IAM user that has the policies of a function's role.

    Tests cannot get the credentials of the role itself.
    """

    def __init__(self, cloud, prefix):
        iam = cloud.client("iam")
        (name,) = (
            role["RoleName"] for role in iam.list_roles()["Roles"] if prefix in role["RoleName"]
        )
        user = f"as-{prefix}"
        iam.create_user(UserName=user)
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            iam.put_user_policy(
                UserName=user, PolicyName=policy, PolicyDocument=json.dumps(document)
            )
        key = iam.create_access_key(UserName=user)["AccessKey"]
        session = boto3.session.Session(
            key["AccessKeyId"], key["SecretAccessKey"], region_name="us-east-1"
        )
        # Do not retry a denied call.
        once = Config(retries={"total_max_attempts": 1})
        self._client = cache(
            lambda service: session.client(service, endpoint_url=cloud.url, config=once)
        )

    def is_allowed(self, service, call, **arguments):
        """Return whether the call is allowed. Errors such as a missing object are ignored."""
        try:
            getattr(self._client(service), call)(**arguments)
        except ClientError as error:
            return error.response["ResponseMetadata"][
                "HTTPStatusCode"
            ] != 403 and "Denied" not in str(error)
        return True


# For each function: the allowed actions on objects, the queues to which it may send messages, and
# the secrets that it may read.
PERMISSIONS = {
    "Api": (
        {
            "uploads": "get put delete",
            "requests": "get put delete",
            "parts": "delete",
            "transcripts": "get delete",
        },
        "Recordings",
        "key token",
    ),
    "Cutter": (
        {
            "uploads": "get delete",
            "requests": "get delete",
            "parts": "get put delete",
            "transcripts": "put delete",
        },
        "Parts Express",
        "",
    ),
    "Transcriber": (
        {
            "uploads": "delete",
            "requests": "delete",
            "parts": "get delete",
            "transcripts": "put delete",
        },
        "Recordings",
        "key",
    ),
    "DeadLetterConsumer": (
        {"uploads": "delete", "requests": "delete", "parts": "delete", "transcripts": "delete"},
        "",
        "",
    ),
}


def test_the_functions_have_only_the_permissions_that_they_need(cloud):
    outputs = cloud.outputs
    bucket, table = outputs["BucketName"], outputs["TableName"]
    cloud.client("dynamodb").create_table(
        TableName="other",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    other_secret = cloud.client("secretsmanager").create_secret(Name="other", SecretString="x")[
        "ARN"
    ]
    other_queue = cloud.client("sqs").create_queue(QueueName="other")["QueueUrl"]
    token_secret, key_secret = cloud.secret("ReadAccessToken"), cloud.secret("SetOpenAIKey")
    item = {"pk": {"S": "x"}, "sk": {"S": "x"}}
    for name, (objects, queues, secrets) in PERMISSIONS.items():
        role = Role(cloud, f"{name}Role")
        for prefix, allowed in {**objects, "elsewhere": ""}.items():
            for action in ("get", "put", "delete"):
                body = {"Body": b"x"} if action == "put" else {}
                is_allowed = role.is_allowed(
                    "s3", f"{action}_object", Bucket=bucket, Key=f"{prefix}/x", **body
                )
                assert is_allowed == (action in allowed.split()), (name, prefix, action)
        for queue, url in {**cloud.queues, "other": other_queue}.items():
            is_allowed = role.is_allowed(
                "sqs", "send_message", QueueUrl=url, MessageBody='{"Records": []}'
            )
            assert is_allowed == (queue in queues.split()), (name, queue)
            assert not role.is_allowed("sqs", "delete_queue", QueueUrl=url)
        for secret, secret_id in {
            "key": key_secret,
            "token": token_secret,
            "other": other_secret,
        }.items():
            is_allowed = role.is_allowed("secretsmanager", "get_secret_value", SecretId=secret_id)
            assert is_allowed == (secret in secrets.split()), (name, secret)
        for action in ("get_item", "delete_item", "update_item"):
            assert role.is_allowed("dynamodb", action, TableName=table, Key=item), (name, action)
        condition = {
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": item["pk"]},
        }
        assert role.is_allowed("dynamodb", "query", TableName=table, **condition), name
        assert role.is_allowed("dynamodb", "put_item", TableName=table, Item=item) == (
            name != "DeadLetterConsumer"
        ), name
        assert not role.is_allowed(
            "dynamodb", "get_item", TableName="other", Key={"pk": {"S": "x"}}
        )
        assert not role.is_allowed("dynamodb", "scan", TableName=table)
        assert not role.is_allowed("iam", "list_users")


# Requests from browsers


@pytest.fixture
def browser(cloud, token):
    """Return a function that opens a page.

    The function returns the page and the arguments for TRANSCRIBE.
    """
    if NO_CHROMIUM:
        pytest.skip(NO_CHROMIUM)
    bearer = token["Authorization"].removeprefix("Bearer ")
    with chromium(ASSETS / "beckett.wav") as started:
        page = started.new_page()

        def open_page(url):
            page.goto(url)
            return page, {
                "module": "/recorder.js",
                "server": f"http://{cloud.host}",
                "options": {"token": bearer},
            }

        yield open_page


@pytest.mark.parametrize("seconds", [3, 60], ids=["direct request", "upload"])
def test_an_allowed_page_transcribes_by_request_and_by_upload(browser, sites, seconds):
    page, arguments = browser(sites[0])
    content = base64.b64encode(long_recording("wav", seconds)).decode()
    result = page.evaluate(TRANSCRIBE, {**arguments, "recording": content})
    assert "It was the" in result.get("transcript", ""), result
    assert bool(result["job"]) == (seconds == 60)


def test_the_page_of_the_stack_uploads_to_its_bucket(cloud, browser):
    page, arguments = browser(f"http://{cloud.host}/")
    page.evaluate("token => localStorage.setItem('token', token)", arguments["options"]["token"])
    content = long_recording("wav", 60)
    page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": content})
    expect(page.locator("#status")).to_contain_text("Transcribed", timeout=60_000)
    assert "It was the" in page.inner_text("#transcript")


def test_a_page_that_is_not_allowed_reaches_neither_the_api_nor_the_bucket(
    cloud, token, browser, sites
):
    page, arguments = browser(sites[1])
    assert (
        transcribe_until_error(
            page, {**arguments, "recording": base64.b64encode(asset("beckett.wav")).decode()}
        )["status"]
        == 0
    )
    form = cloud.http.post("/api/uploads", headers=token, json={"size": 10}).json()["upload"]
    assert page.evaluate(UPLOAD, form) == 0
    page, _ = browser(sites[0])
    assert page.evaluate(UPLOAD, form) == 204


# With auth=jwt


@pytest.fixture(scope="module")
def issuer():
    with Issuer.serving() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def jwt_cloud(tmp_path_factory, engine_process, issuer):
    choices = {"auth": "jwt", "issuer": issuer.url, "audience": "steno, other"}
    with deployed_cloud(
        tmp_path_factory.mktemp("jwt"), openai_base_url=engine_process.url, **choices
    ) as cloud:
        yield cloud


def test_jobs_are_visible_only_to_the_jwt_subject_that_created_them(jwt_cloud, issuer):
    owner, other = issuer.header(sub="mine"), issuer.header(sub="other")
    created = jwt_cloud.http.post("/api/uploads", headers=owner, json={"size": 10})
    assert created.status_code == 201
    job_path = created.headers["Location"]
    assert jwt_cloud.http.get(job_path, headers=owner).json()["status"] == "awaiting_upload"
    for method, path in (
        ("GET", job_path),
        ("GET", f"{job_path}/transcript"),
        ("POST", f"{job_path}/retry"),
        ("DELETE", job_path),
    ):
        response = jwt_cloud.http.request(method, path, headers=other)
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), (method, path)
    assert jwt_cloud.http.delete(job_path, headers=owner).status_code == 204


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "elsewhere"},
        {"iss": "https://elsewhere.example"},
        {"exp": 1},
        {"forged": True},
        None,
    ],
)
def test_an_invalid_or_missing_jwt_is_rejected(jwt_cloud, issuer, claims):
    headers = {} if claims is None else issuer.header(**{"sub": "mine", **claims})
    for method, path in PROTECTED_ROUTES:
        assert jwt_cloud.http.request(method, path, headers=headers).status_code == 401
    assert jwt_cloud.http.get("/api/health").json()["status"] == "ok"
