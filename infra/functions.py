"""The Lambda functions of the stack: their code, environment, rights and event sources."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from aws_cdk import Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from aws_cdk.aws_lambda_event_sources import SqsEventSource

from handler.durations import TRANSCRIPT_DAYS
from infra.choices import Choices

# The handler's deadline for the upstream is 25 s on Lambda. The function's timeout is longer, so
# that the handler can report a missed deadline. The gateway's timeout is longer than that of the
# function, so that the gateway can report that the function timed out.
API_TIMEOUT, GATEWAY_TIMEOUT = Duration.seconds(27), Duration.seconds(29)
CUTTER_TIMEOUT = Duration.minutes(15)
# A part may wait 60 s for the upstream's rate limit and 300 s for the response (pacing.py). The
# worker stops 30 s before the timeout (worker.py). The remaining 30 s are for AWS API calls.
TRANSCRIBER_TIMEOUT = Duration.minutes(7)
DEAD_LETTERS_TIMEOUT = Duration.minutes(1)
# The maximum size of a request body. Encoded in base64, it must fit in a Lambda event of 6 MB.
DIRECT_BYTES = 4_500_000
_ARCHITECTURES = {"aarch64": lambda_.Architecture.ARM_64, "x86_64": lambda_.Architecture.X86_64}
LOG_RETENTION = logs.RetentionDays.ONE_MONTH


@dataclass(frozen=True)
class Resources:
    """The resources that the functions share."""

    openai_key: secretsmanager.Secret
    access_token: secretsmanager.Secret
    dead_letters: sqs.Queue
    recordings: sqs.Queue
    parts: sqs.Queue
    express: sqs.Queue
    bucket: s3.Bucket
    table: dynamodb.Table


class Functions:
    """Adds the functions to the stack `scope`.

    `mappings` are the ids of the event source mappings that process jobs.
    """

    def __init__(self, scope: Stack, choices: Choices, resources: Resources) -> None:
        self._scope = scope
        self._choices = choices
        self._resources = resources
        self.mappings: list[str] = []

    def add_api(self, code: Path) -> lambda_.Function:
        choices = self._choices
        snap_start = None
        if choices.snapstart == "on":
            snap_start = lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS
        environment = {
            "AUTH": choices.auth,
            "ALLOWED_ORIGINS": ",".join(choices.origin_list),
            "MAX_AUDIO_BYTES": str(DIRECT_BYTES),
        }
        if choices.auth == "token":
            environment["TOKEN_SECRET_ARN"] = self._resources.access_token.secret_arn
        function = self._function(
            "Api",
            code,
            "handler.main.lambda_handler",
            timeout=API_TIMEOUT,
            memory_size=1024,
            snap_start=snap_start,
            environment=environment,
        )
        self._allow_upstream_keys(function)
        if choices.auth == "token":
            self._allow(
                function, self._resources.access_token.secret_arn, "secretsmanager:GetSecretValue"
            )
        # "Get" is also required for HeadObject, which checks whether a recording was uploaded.
        for prefix in ("uploads", "requests"):
            self._allow_objects(function, prefix, "Get", "Put", "Delete")
        self._allow_objects(function, "parts", "Delete")
        self._allow_objects(function, "transcripts", "Get", "Delete")
        self._allow_send(function, self._resources.recordings)
        self._allow_new_items(function)
        return function

    def add_cutter(self, code: Path) -> lambda_.Function:
        """Return the function that decodes untrusted recordings. It cannot read the secrets."""
        function = self._function(
            "Cutter",
            code,
            "handler.worker.lambda_handler",
            timeout=CUTTER_TIMEOUT,
            memory_size=1769,  # one vCPU
            ephemeral_storage_size=Size.gibibytes(4),  # for the largest upload and its parts
            environment={"AUTH": "open"},  # it has no HTTP callers
        )
        for prefix in ("uploads", "requests"):
            self._allow_objects(function, prefix, "Get", "Delete")
        self._allow_objects(function, "parts", "Get", "Put", "Delete")
        self._allow_objects(function, "transcripts", "Put", "Delete")
        self._allow_send(function, self._resources.parts, self._resources.express)
        self._allow_new_items(function)
        self._consume(function, self._resources.recordings, self._choices.parts_at_once // 4)
        return function

    def add_transcriber(self, code: Path) -> lambda_.Function:
        """Return the function that sends parts to the upstream."""
        function = self._function(
            "Transcriber",
            code,
            "handler.worker.lambda_handler",
            timeout=TRANSCRIBER_TIMEOUT,
            memory_size=512,
            environment={"AUTH": "open"},  # it has no HTTP callers
        )
        self._allow_upstream_keys(function)
        for prefix in ("uploads", "requests"):
            self._allow_objects(function, prefix, "Delete")
        self._allow_objects(function, "parts", "Get", "Delete")
        self._allow_objects(function, "transcripts", "Put", "Delete")
        self._allow_send(function, self._resources.recordings)  # requests to split a part
        self._allow_new_items(function)
        batch = self._choices.batch_size
        invocations = ceil(self._choices.parts_at_once / batch)
        self._consume(function, self._resources.parts, invocations, batch)
        self._consume(function, self._resources.express, invocations // 2, batch)
        return function

    def add_dead_letter_consumer(self, code: Path) -> None:
        """Add the function that reads the dead-letter queue and marks the affected jobs as failed.

        It is a separate function because the other functions may be overloaded.
        """
        function = self._function(
            "DeadLetterConsumer",
            code,
            "handler.worker.dead_letters_handler",
            timeout=DEAD_LETTERS_TIMEOUT,
            memory_size=512,
            environment={"AUTH": "open"},  # it has no HTTP callers
        )
        for prefix in ("uploads", "requests", "parts", "transcripts"):
            self._allow_objects(function, prefix, "Delete")
        self._event_source(function, self._resources.dead_letters, 2)

    def _consume(
        self, function: lambda_.Function, queue: sqs.Queue, max_concurrency: int, batch: int = 1
    ) -> None:
        self.mappings.append(
            self._event_source(function, queue, max_concurrency, batch).event_source_mapping_id
        )

    def _event_source(
        self, function: lambda_.Function, queue: sqs.Queue, max_concurrency: int, batch: int = 1
    ) -> SqsEventSource:
        """Invoke the function for messages in the queue, up to `batch` at a time.

        At most `max_concurrency` invocations run at the same time. Lambda requires at least 2.
        https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
        """
        source = SqsEventSource(
            queue,
            batch_size=batch,
            max_concurrency=max(2, max_concurrency),
            report_batch_item_failures=True,
        )
        function.add_event_source(source)
        return source

    def _function(
        self, name: str, code: Path, entry: str, environment: dict[str, str], **props: Any
    ) -> lambda_.Function:
        """Return a Lambda function that may write logs and traces, and may use the table."""
        log = logs.LogGroup(
            self._scope,
            f"{name}Log",
            retention=LOG_RETENTION,
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = iam.Role(
            self._scope, f"{name}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")
        )
        function = lambda_.Function(
            self._scope,
            name,
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=_ARCHITECTURES[self._choices.machine],
            code=lambda_.Code.from_asset(str(code)),
            handler=entry,
            role=role,
            log_group=log,
            logging_format=lambda_.LoggingFormat.JSON,
            tracing=lambda_.Tracing.ACTIVE,
            environment={
                "OPENAI_SECRET_ARN": self._resources.openai_key.secret_arn,
                "OPENAI_BASE_URL": self._choices.openai_base_url,
                "WHISPER_MODEL": self._choices.model,
                "BUCKET_NAME": self._resources.bucket.bucket_name,
                "TABLE_NAME": self._resources.table.table_name,
                "RECORDINGS_QUEUE_URL": self._resources.recordings.queue_url,
                "PARTS_QUEUE_URL": self._resources.parts.queue_url,
                "EXPRESS_QUEUE_URL": self._resources.express.queue_url,
                "TRANSCRIPT_DAYS": str(TRANSCRIPT_DAYS),
                "METRICS_NAMESPACE": self._choices.name,
                **self._optional_environment(),
                **environment,
            },
            **props,
        )
        self._allow(function, log.log_group_arn, "logs:CreateLogStream", "logs:PutLogEvents")
        actions = ("GetItem", "UpdateItem", "DeleteItem", "Query")
        self._allow(
            function, self._resources.table.table_arn, *(f"dynamodb:{action}" for action in actions)
        )
        # Without ListBucket, S3 returns 403 instead of 404 if an object does not exist.
        self._allow(function, self._resources.bucket.bucket_arn, "s3:ListBucket")
        return function

    def _optional_environment(self) -> dict[str, str]:
        choices = self._choices
        values = {
            "MODELS": choices.models,
            "UPSTREAMS": choices.upstreams,
            "FALLBACK_MODELS": choices.fallback_models,
            "DAILY_SECONDS": choices.daily_seconds,
            "DAILY_SECONDS_PER_CALLER": choices.daily_seconds_per_caller,
            "AWS_ENDPOINT_URL": choices.aws_endpoint_url,
        }
        return {name: value for name, value in values.items() if value}

    def _allow(self, function: lambda_.Function, resource: str, *actions: str) -> None:
        function.add_to_role_policy(
            iam.PolicyStatement(actions=list(actions), resources=[resource])
        )

    def _allow_upstream_keys(self, function: lambda_.Function) -> None:
        arns = [upstream["secret_arn"] for upstream in self._choices.upstream_list]
        for arn in arns or [self._resources.openai_key.secret_arn]:
            self._allow(function, arn, "secretsmanager:GetSecretValue")

    def _allow_new_items(self, function: lambda_.Function) -> None:
        self._allow(function, self._resources.table.table_arn, "dynamodb:PutItem")

    def _allow_objects(self, function: lambda_.Function, prefix: str, *actions: str) -> None:
        objects = self._resources.bucket.arn_for_objects(f"{prefix}/*")
        self._allow(function, objects, *(f"s3:{action}Object" for action in actions))

    def _allow_send(self, function: lambda_.Function, *queues: sqs.Queue) -> None:
        for queue in queues:
            self._allow(function, queue.queue_arn, "sqs:SendMessage")
