"""The stack, deployed to a local AWS that enforces IAM, and used: real functions, queues, bucket and table."""

import base64
import json
import time
from functools import cache
from uuid import uuid4

import boto3
import httpx2
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from playwright.sync_api import expect

from tests.browsers.drivers import NO_CHROMIUM, chromium
from tests.browsers.site import TRANSCRIBE, UPLOAD, refused, site
from tests.integration.cloud import deployed, finished, stored, uploaded
from tests.integration.issuer import Issuer
from tests.samples import ASSETS, asset, long_recording, recording

WORDS = "Ever tried. Ever failed."
GUARDED = (("POST", "/api/transcribe"), ("POST", "/api/uploads"), ("GET", "/api/transcriptions/x"))


@pytest.fixture(scope="module")
def abroad(tmp_path_factory):
    """A site whose pages may call, and one whose pages may not."""
    with (
        site(tmp_path_factory.mktemp("site")) as allowed,
        site(tmp_path_factory.mktemp("site")) as stranger,
    ):
        yield allowed, stranger


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, engine_process, abroad):
    with deployed(
        tmp_path_factory.mktemp("deployed"), openai_base_url=engine_process.url, origins=abroad[0]
    ) as made:
        yield made


@pytest.fixture(scope="module")
def token(cloud):
    secret = cloud.client("secretsmanager").get_secret_value(
        SecretId=cloud.secret("ReadAccessToken")
    )
    return {"Authorization": f"Bearer {secret['SecretString']}"}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_without_the_token_nothing_is_spent_and_nothing_is_told(cloud, headers):
    for method, path in GUARDED:
        answer = cloud.http.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert cloud.http.get("/api/health").json()["status"] == "ok"


def test_a_recording_in_one_request_is_transcribed(cloud, token):
    answer = cloud.http.post("/api/transcribe", headers=token, files={"file": asset("beckett.wav")})
    assert answer.json()["transcript"].startswith(WORDS)


@pytest.mark.parametrize(
    ("content", "words", "parts"),
    [
        (asset("endgame_nagg_nell.wav"), "that's a good story", 1),
        (long_recording("ogg", 80), "It was the", 2),
    ],
    ids=["by the express queue", "by the parts queue"],
)
def test_an_upload_goes_through_bucket_queues_and_functions(cloud, token, content, words, parts):
    where = uploaded(cloud, token, content, response_format="srt")
    job = finished(cloud, token, where)
    assert (job["status"], job["error"]) == ("completed", None)
    assert job["progress"] == {"done": parts, "total": parts}
    assert words in job["transcript"]
    assert "-->" in cloud.http.get(f"{where}/transcript?response_format=srt", headers=token).text
    assert stored(cloud) == ["transcripts"]
    assert cloud.http.delete(where, headers=token).status_code == 204
    assert stored(cloud) == []


def test_a_recording_in_one_request_becomes_a_job_if_the_upstream_does_not_take_it(cloud, token):
    answer = cloud.http.post(
        "/api/transcribe", headers=token, files={"file": recording("aac", seconds=8)}
    )
    assert (answer.status_code, answer.json()["transcript"][: len(WORDS)]) == (200, WORDS)
    assert "requests" not in stored(cloud)


def test_a_part_whose_answer_was_cut_off_is_halved(cloud, token, engine):
    usage = {"type": "tokens", "input_tokens": 1, "output_tokens": 1990, "total_tokens": 1991}
    engine.script({"body": {"text": "cut off", "usage": usage}})
    job = finished(cloud, token, uploaded(cloud, token, long_recording("ogg", 24)))
    assert (job["status"], job["error"]) == ("completed", None)
    assert "It was the" in job["transcript"]
    assert "cut off" not in job["transcript"]
    assert len(engine.calls()) == 3


def test_the_job_of_a_dead_letter_fails(cloud, token):
    asked = cloud.http.post("/api/uploads", headers=token, json={"size": 10}).json()
    where = f"/api/transcriptions/{asked['id']}"
    letter = json.dumps({"key": asked["upload"]["fields"]["key"]})
    cloud.client("sqs").send_message(QueueUrl=cloud.queues["DeadLetters"], MessageBody=letter)
    job = finished(cloud, token, where)
    assert (job["status"], job["error"]["code"]) == ("failed", "internal_error")


def test_what_a_deleted_job_left_is_deleted_with_the_rights_of_each_function(cloud):
    """The message of a recording comes after its job was deleted; and so does its dead letter."""
    s3, sqs = cloud.client("s3"), cloud.client("sqs")
    for queue in ("Recordings", "DeadLetters"):
        identity = uuid4().hex
        left = [
            f"uploads/{identity}.webm",
            f"parts/{identity}/0/0000.flac",
            f"transcripts/{identity}.json",
        ]
        for key in reversed(left):  # the bucket sends a message about the first
            s3.put_object(Bucket=cloud.outputs["BucketName"], Key=key, Body=b"x")
        sqs.send_message(QueueUrl=cloud.queues[queue], MessageBody=json.dumps({"key": left[0]}))
        deadline = time.monotonic() + 60
        while {"uploads", "parts"} & set(stored(cloud)):
            assert time.monotonic() < deadline, stored(cloud)


def test_a_job_that_failed_is_tried_again_without_an_upload(cloud, token, engine):
    refusal = {
        "status": 401,
        "body": {"error": {"message": "no", "code": "invalid_api_key"}},
        "times": 2,
    }
    engine.script(refusal)
    # Nobody has heard it before.
    where = uploaded(cloud, token, recording("ogg", "endgame_nagg_nell.wav", 5))
    assert finished(cloud, token, where)["error"]["code"] == "upstream_credentials"
    engine.script()
    assert cloud.http.post(f"{where}/retry", headers=token).status_code == 202
    assert finished(cloud, token, where)["transcript"].startswith("Do you hear me?")


@pytest.mark.parametrize(
    "change",
    [
        {"key": "uploads/" + "0" * 32 + ".webm"},
        {"Content-Type": "text/html"},
        {"policy": "e30="},
        {"x-amz-date": "20200101T000000Z"},
    ],
)
def test_the_form_uploads_what_it_is_for_and_nothing_else(cloud, token, change):
    form = cloud.http.post("/api/uploads", headers=token, json={"size": 10}).json()["upload"]
    answer = httpx2.post(
        form["url"], data={**form["fields"], **change}, files={"file": b"0123456789"}
    )
    assert answer.status_code in (400, 403)


class Role:
    """The rights of a function, in the hands of a user: a role's own credentials are not for strangers."""

    def __init__(self, cloud, beginning):
        iam = cloud.client("iam")
        (name,) = (
            role["RoleName"] for role in iam.list_roles()["Roles"] if beginning in role["RoleName"]
        )
        user = f"as-{beginning}"
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
        # A refusal is an answer, not a reason to ask again.
        once = Config(retries={"total_max_attempts": 1})
        self._client = cache(
            lambda service: session.client(service, endpoint_url=cloud.url, config=once)
        )

    def may(self, service, call, **arguments):
        """Whether it is allowed; that there is nothing to get is an answer, too."""
        try:
            getattr(self._client(service), call)(**arguments)
        except ClientError as error:
            return error.response["ResponseMetadata"][
                "HTTPStatusCode"
            ] != 403 and "Denied" not in str(error)
        return True


RIGHTS = {  # what each function may do with objects, to which queues it may send, and the secrets it may read
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


def test_the_functions_may_do_their_work_and_not_what_lies_beside_it(cloud):
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
    for name, (objects, queues, secrets) in RIGHTS.items():
        role = Role(cloud, f"{name}Role")
        for prefix, allowed in {**objects, "elsewhere": ""}.items():
            for action in ("get", "put", "delete"):
                body = {"Body": b"x"} if action == "put" else {}
                may = role.may("s3", f"{action}_object", Bucket=bucket, Key=f"{prefix}/x", **body)
                assert may == (action in allowed.split()), (name, prefix, action)
        for queue, url in {**cloud.queues, "other": other_queue}.items():
            may = role.may("sqs", "send_message", QueueUrl=url, MessageBody='{"Records": []}')
            assert may == (queue in queues.split()), (name, queue)
            assert not role.may("sqs", "delete_queue", QueueUrl=url)
        for secret, identity in {
            "key": key_secret,
            "token": token_secret,
            "other": other_secret,
        }.items():
            may = role.may("secretsmanager", "get_secret_value", SecretId=identity)
            assert may == (secret in secrets.split()), (name, secret)
        for action in ("get_item", "delete_item", "update_item"):
            assert role.may("dynamodb", action, TableName=table, Key=item), (name, action)
        condition = {
            "KeyConditionExpression": "pk = :pk",
            "ExpressionAttributeValues": {":pk": item["pk"]},
        }
        assert role.may("dynamodb", "query", TableName=table, **condition), name
        assert role.may("dynamodb", "put_item", TableName=table, Item=item) == (
            name != "DeadLetterConsumer"
        ), name
        assert not role.may("dynamodb", "get_item", TableName="other", Key={"pk": {"S": "x"}})
        assert not role.may("dynamodb", "scan", TableName=table)
        assert not role.may("iam", "list_users")


# From browsers


@pytest.fixture
def browser(cloud, token):
    """Opens a page; what TRANSCRIBE is given there to reach the API from it."""
    if NO_CHROMIUM:
        pytest.skip(NO_CHROMIUM)
    bearer = token["Authorization"].removeprefix("Bearer ")
    with chromium(ASSETS / "beckett.wav") as started:
        page = started.new_page()

        def visit(url):
            page.goto(url)
            return page, {
                "module": "/recorder.js",
                "server": f"http://{cloud.host}",
                "options": {"token": bearer},
            }

        yield visit


@pytest.mark.parametrize("seconds", [3, 60], ids=["in one request", "by the bucket"])
def test_an_allowed_page_has_recordings_transcribed_either_way(browser, abroad, seconds):
    page, given = browser(abroad[0])
    content = base64.b64encode(long_recording("wav", seconds)).decode()
    told = page.evaluate(TRANSCRIBE, {**given, "recording": content})
    assert "It was the" in told["transcript"], told
    assert bool(told["job"]) == (seconds == 60)


def test_the_page_of_the_stack_itself_uploads_to_its_bucket(cloud, browser):
    page, given = browser(f"http://{cloud.host}/")
    page.evaluate("token => localStorage.setItem('token', token)", given["options"]["token"])
    content = long_recording("wav", 60)
    page.set_input_files("#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": content})
    expect(page.locator("#status")).to_contain_text("Transcribed", timeout=60_000)
    assert "It was the" in page.inner_text("#transcript")


def test_a_page_that_is_not_allowed_reaches_neither_the_api_nor_the_bucket(
    cloud, token, browser, abroad
):
    page, given = browser(abroad[1])
    assert (
        refused(page, {**given, "recording": base64.b64encode(asset("beckett.wav")).decode()})[
            "status"
        ]
        == 0
    )
    form = cloud.http.post("/api/uploads", headers=token, json={"size": 10}).json()["upload"]
    assert page.evaluate(UPLOAD, form) == 0
    page, _ = browser(abroad[0])
    assert page.evaluate(UPLOAD, form) == 204


# Where the gateway asks for JWTs


@pytest.fixture(scope="module")
def issuer():
    with Issuer.serving() as made:
        yield made


@pytest.fixture(scope="module")
def jwt_cloud(tmp_path_factory, engine_process, issuer):
    choices = {"auth": "jwt", "issuer": issuer.url, "audience": "steno, other"}
    with deployed(
        tmp_path_factory.mktemp("jwt"), openai_base_url=engine_process.url, **choices
    ) as made:
        yield made


def test_each_caller_with_a_jwt_has_jobs_of_its_own(jwt_cloud, issuer):
    mine, other = issuer.header(sub="mine"), issuer.header(sub="other")
    asked = jwt_cloud.http.post("/api/uploads", headers=mine, json={"size": 10})
    assert asked.status_code == 201
    where = asked.headers["Location"]
    assert jwt_cloud.http.get(where, headers=mine).json()["status"] == "awaiting_upload"
    for method, path in (
        ("GET", where),
        ("GET", f"{where}/transcript"),
        ("POST", f"{where}/retry"),
        ("DELETE", where),
    ):
        answer = jwt_cloud.http.request(method, path, headers=other)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)
    assert jwt_cloud.http.delete(where, headers=mine).status_code == 204


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
def test_a_jwt_that_is_not_the_issuers_own_for_this_api_is_refused(jwt_cloud, issuer, claims):
    headers = {} if claims is None else issuer.header(**{"sub": "mine", **claims})
    for method, path in GUARDED:
        assert jwt_cloud.http.request(method, path, headers=headers).status_code == 401
    assert jwt_cloud.http.get("/api/health").json()["status"] == "ok"
