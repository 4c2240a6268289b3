"""Steno in AWS: one stack, and nothing in it is open unless it says so."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_apigatewayv2 as http
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from aws_cdk.aws_apigatewayv2_authorizers import HttpJwtAuthorizer
from aws_cdk.aws_apigatewayv2_integrations import HttpLambdaIntegration
from aws_cdk.aws_lambda_event_sources import SqsEventSource
from constructs import Construct

from infra.access_log import AccessLog
from infra.choices import Choices
from infra.findings import acknowledge
from infra.watching import Watching

# In this order, so that each has time to tell what became of the one before: the speech service (the handler's own
# 25 s on Lambda), the function, the gateway.
API_TIMEOUT, GATEWAY_TIMEOUT = Duration.seconds(27), Duration.seconds(29)
WORKER_TIMEOUT = Duration.minutes(15)
# With the worker's back-off (messages.py), they last for two days of an outage of AWS.
MOST_DELIVERIES = 200
DIRECT_BYTES = 4_500_000  # what an event of 6 MB holds in base64
TRANSCRIPT_DAYS = 30
UNFINISHED_DAYS = 7
_PAGE = ("/", "/page.js", "/recorder.js", "/kept.js", "/style.css")
_DOCS = ("/docs", "/docs.js", "/openapi.json")
OPEN_ROUTES = (*_PAGE, *_DOCS, "/api/health", "/api/config")
_CLIENTS_HEADERS = [
    "authorization",
    "content-type",
    "user-agent",
    "openai-organization",
    "openai-project",
    *(
        f"x-stainless-{name}"
        for name in (
            "arch",
            "async",
            "helper-method",
            "lang",
            "os",
            "package-version",
            "read-timeout",
            "retry-count",
            "runtime",
            "runtime-version",
            "timeout",
        )
    ),
]
_ARCHITECTURES = {"aarch64": lambda_.Architecture.ARM_64, "x86_64": lambda_.Architecture.X86_64}
_KEPT_LOGS = logs.RetentionDays.ONE_MONTH


@dataclass(frozen=True)
class Bundles:
    """The folders with each function's code."""

    api: Path
    worker: Path


class Steno(Stack):
    """The API, the worker, and between them a bucket, a queue and a table."""

    def __init__(self, scope: Construct, name: str, bundles: Bundles, choices: Choices, **props: Any) -> None:
        super().__init__(scope, name, description="Speech to text that you own", **props)
        self._choices = choices
        # Do not rename the constructs that hold data: test_stack.py pins their logical ids.
        self.openai_key, self.access_token = self._secrets()
        self.queue, self.dead_letters = self._queues()
        self.gateway = self._gateway()
        self.bucket = self._bucket()
        self.table = self._table()
        self.api = self._api(bundles.api)
        self.worker = self._worker(bundles.worker)
        self._dead_letter_consumer(bundles.worker)
        self._routes()
        self.stage = self._stage()
        Watching(self, self.stage, self.worker, (self.queue, self.dead_letters), choices)
        acknowledge(self)
        self._outputs()

    def _secrets(self) -> tuple[secretsmanager.Secret, secretsmanager.Secret]:
        key = secretsmanager.Secret(self, "OpenAIKey", description="Steno's OpenAI key: its string is the key itself")
        # It waits for the owner's: a generated one would be no key.
        child: Any = key.node.default_child
        child.add_property_deletion_override("GenerateSecretString")
        token = secretsmanager.Secret(
            self,
            "AccessToken",
            description="The bearer token of Steno's callers",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                exclude_punctuation=True, password_length=43, require_each_included_type=False
            ),
        )
        return key, token

    def _queues(self) -> tuple[sqs.Queue, sqs.Queue]:
        secured: dict[str, Any] = {
            "encryption": sqs.QueueEncryption.SQS_MANAGED,
            "enforce_ssl": True,
        }
        dead = sqs.Queue(
            self,
            "DeadLetters",
            visibility_timeout=Duration.minutes(6),  # six times the function's, as AWS recommends
            retention_period=Duration.days(14),
            **secured,
        )
        queue = sqs.Queue(
            self,
            "Recordings",
            retention_period=Duration.days(14),  # longer than the bucket keeps what it tells of
            # Lambda asks for no less than the function's; the worker shortens it to its lease.
            visibility_timeout=WORKER_TIMEOUT,
            dead_letter_queue=sqs.DeadLetterQueue(max_receive_count=MOST_DELIVERIES, queue=dead),
            **secured,
        )
        # The account, not the bucket: that one cannot be made before its queue lets it speak.
        from_here = {"StringEquals": {"aws:SourceAccount": self.account}}
        notifications = iam.ServicePrincipal("s3.amazonaws.com", conditions=from_here)
        queue.add_to_resource_policy(
            iam.PolicyStatement(actions=["sqs:SendMessage"], principals=[notifications], resources=[queue.queue_arn])
        )
        return queue, dead

    def _bucket(self) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            "Bucket",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
            cors=[
                s3.CorsRule(
                    allowed_methods=[s3.HttpMethods.POST],
                    allowed_origins=[*self._choices.origin_list, self.gateway.api_endpoint],  # Steno's own page, too
                    allowed_headers=["*"],
                    max_age=3600,
                )
            ],
            lifecycle_rules=[
                s3.LifecycleRule(
                    prefix="uploads/",
                    expiration=Duration.days(UNFINISHED_DAYS),
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                ),
                s3.LifecycleRule(prefix="transcripts/", expiration=Duration.days(TRANSCRIPT_DAYS)),
            ],
        )
        # As a property of the bucket: CDK's own way brings a function along that writes it.
        child: Any = bucket.node.default_child
        child.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            queue_configurations=[
                s3.CfnBucket.QueueConfigurationProperty(
                    event="s3:ObjectCreated:*",
                    queue=self.queue.queue_arn,
                    filter=s3.CfnBucket.NotificationFilterProperty(
                        s3_key=s3.CfnBucket.S3KeyFilterProperty(
                            rules=[s3.CfnBucket.FilterRuleProperty(name="prefix", value="uploads/")]
                        )
                    ),
                )
            ]
        )
        bucket.node.add_dependency(self.queue)
        return bucket

    def _table(self) -> dynamodb.Table:
        return dynamodb.Table(
            self,
            "Table",
            partition_key=dynamodb.Attribute(name="pk", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="sk", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            time_to_live_attribute="expires",
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True,
                recovery_period_in_days=1,  # it keeps deleted and expired texts
            ),
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )

    def _api(self, code: Path) -> lambda_.Function:
        choices = self._choices
        function = self._function(
            "Api",
            code,
            "handler.main.lambda_handler",
            timeout=API_TIMEOUT,
            memory_size=1024,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if choices.snapstart == "on" else None,
            environment={
                "AUTH": choices.auth,
                "ALLOWED_ORIGINS": ",".join(choices.origin_list),
                "MAX_AUDIO_BYTES": str(DIRECT_BYTES),
                **({"TOKEN_SECRET_ARN": self.access_token.secret_arn} if choices.auth == "token" else {}),
            },
        )
        self._allow(function, self.openai_key.secret_arn, "secretsmanager:GetSecretValue")
        if choices.auth == "token":
            self._allow(function, self.access_token.secret_arn, "secretsmanager:GetSecretValue")
        self._allow(function, self._objects("uploads"), "s3:GetObject", "s3:PutObject", "s3:DeleteObject")
        # A large recording that is tried again is copied in parts.
        self._allow(function, self._objects("uploads"), "s3:AbortMultipartUpload")
        self._allow(function, self._objects("transcripts"), "s3:GetObject", "s3:DeleteObject")
        return function

    def _worker(self, code: Path) -> lambda_.Function:
        function = self._function(
            "Worker",
            code,
            "handler.worker.lambda_handler",
            timeout=WORKER_TIMEOUT,
            memory_size=1769,  # a whole processor
            ephemeral_storage_size=Size.gibibytes(4),  # the largest upload, and the parts of the longest
            environment={"AUTH": "open"},  # nobody calls it
            recursive_loop=lambda_.RecursiveLoop.ALLOW,  # it has a limit of its own: MOST_HAND_OVERS
        )
        self._allow(function, self.openai_key.secret_arn, "secretsmanager:GetSecretValue")
        self._allow(function, self._objects("uploads"), "s3:GetObject", "s3:DeleteObject")
        self._allow(function, self._objects("transcripts"), "s3:PutObject", "s3:DeleteObject")
        self._allow(function, self.queue.queue_arn, "sqs:SendMessage")
        source = SqsEventSource(
            self.queue, batch_size=1, max_concurrency=int(self._choices.workers), report_batch_item_failures=True
        )
        function.add_event_source(source)
        self.mapping = source.event_source_mapping_id
        return function

    def _dead_letter_consumer(self, code: Path) -> None:
        """Fails the jobs of dead letters; of its own, as the worker may be overloaded."""
        function = self._function(
            "DeadLetterConsumer",
            code,
            "handler.dead_letters.lambda_handler",
            timeout=Duration.minutes(1),
            memory_size=512,
            environment={"AUTH": "open"},  # nobody calls it
        )
        self._allow(function, self._objects("uploads"), "s3:GetObject", "s3:DeleteObject")
        source = SqsEventSource(
            self.dead_letters,
            batch_size=1,
            max_concurrency=2,
            report_batch_item_failures=True,
        )
        function.add_event_source(source)

    def _function(
        self, name: str, code: Path, entry: str, environment: dict[str, str], **props: Any
    ) -> lambda_.Function:
        """A function with a role of its own, that may write its log and its traces, and use the table."""
        log = logs.LogGroup(self, f"{name}Log", retention=_KEPT_LOGS, removal_policy=RemovalPolicy.DESTROY)
        role = iam.Role(self, f"{name}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        function = lambda_.Function(
            self,
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
                "OPENAI_SECRET_ARN": self.openai_key.secret_arn,
                "OPENAI_BASE_URL": self._choices.openai_base_url,
                "WHISPER_MODEL": self._choices.model,
                "BUCKET_NAME": self.bucket.bucket_name,
                "TABLE_NAME": self.table.table_name,
                "TRANSCRIPT_DAYS": str(TRANSCRIPT_DAYS),
                **self._only_given(),
                **environment,
            },
            **props,
        )
        self._allow(function, log.log_group_arn, "logs:CreateLogStream", "logs:PutLogEvents")
        table = ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query")
        self._allow(function, self.table.table_arn, *(f"dynamodb:{action}" for action in table))
        # Without it, S3 says of what is not there that it is forbidden.
        self._allow(function, self.bucket.bucket_arn, "s3:ListBucket")
        return function

    def _only_given(self) -> dict[str, str]:
        choices = self._choices
        given = {
            "DAILY_SECONDS": choices.daily_seconds,
            "DAILY_SECONDS_PER_CALLER": choices.daily_seconds_per_caller,
            "AWS_ENDPOINT_URL": choices.aws_endpoint_url,
        }
        return {name: value for name, value in given.items() if value}

    def _allow(self, function: lambda_.Function, resource: str, *actions: str) -> None:
        function.add_to_role_policy(iam.PolicyStatement(actions=list(actions), resources=[resource]))

    def _objects(self, prefix: str) -> str:
        return self.bucket.arn_for_objects(f"{prefix}/*")

    def _gateway(self) -> http.HttpApi:
        return http.HttpApi(
            self,
            "Gateway",
            api_name="Steno",
            create_default_stage=False,
            cors_preflight=http.CorsPreflightOptions(
                allow_origins=self._choices.origin_list,
                allow_methods=[http.CorsHttpMethod.GET, http.CorsHttpMethod.POST, http.CorsHttpMethod.DELETE],
                allow_headers=_CLIENTS_HEADERS,
                expose_headers=["location", "retry-after", "steno-model", "x-should-retry"],
                max_age=Duration.hours(1),
            ),
        )

    def _routes(self) -> None:
        choices = self._choices
        # Only published versions have snapshots.
        called = self.api if choices.snapstart == "off" else self.api.add_alias("live")
        integration = HttpLambdaIntegration("Api", called, timeout=GATEWAY_TIMEOUT)
        methods = [http.HttpMethod.GET, http.HttpMethod.POST, http.HttpMethod.DELETE]
        for path in OPEN_ROUTES:
            self.gateway.add_routes(path=path, methods=[http.HttpMethod.GET], integration=integration)
        authorizer = (
            HttpJwtAuthorizer("Authorizer", choices.issuer, jwt_audience=choices.audience_list)
            if choices.auth == "jwt"
            else None
        )
        self.gateway.add_routes(path="/{proxy+}", methods=methods, integration=integration, authorizer=authorizer)

    def _stage(self) -> http.HttpStage:
        log = logs.LogGroup(
            self,
            "AccessLog",
            # Under another prefix, each group adds an entry to the account's policy for log
            # delivery, and deployments fail where its 5,120 characters are full.
            # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/AWS-logs-infrastructure-CWL.html
            log_group_name=f"/aws/vendedlogs/steno/{self.stack_name}",
            retention=_KEPT_LOGS,
            removal_policy=RemovalPolicy.DESTROY,
        )
        return http.HttpStage(
            self,
            "Stage",
            http_api=self.gateway,
            stage_name="$default",
            auto_deploy=True,
            throttle=http.ThrottleSettings(rate_limit=50, burst_limit=100),
            access_log_settings=AccessLog(log),
        )

    def _outputs(self) -> None:
        key, token = self.openai_key.secret_arn, self.access_token.secret_arn
        aws = f"aws --region {self.region}"  # the reader's configuration may name another, or none
        for name, value in {
            "Url": self.stage.url,
            # Asked for, so that it is in no shell's history.
            "SetOpenAIKey": f'read -rs KEY && printf %s "$KEY" | {aws} secretsmanager put-secret-value'
            f" --secret-id {key} --secret-string file:///dev/stdin",
            "ReadAccessToken": f"{aws} secretsmanager get-secret-value --query SecretString --output text"
            f" --secret-id {token}",
            "BucketName": self.bucket.bucket_name,
            "TableName": self.table.table_name,
            "QueueUrl": self.queue.queue_url,
            "StopWorker": f"{aws} lambda update-event-source-mapping --no-enabled --uuid {self.mapping}",
            "ApiFunction": self.api.function_name,
            "WorkerFunction": self.worker.function_name,
        }.items():
            CfnOutput(self, name, value=value)
