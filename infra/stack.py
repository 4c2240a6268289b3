"""The CDK stack that contains all AWS resources of Steno."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_apigatewayv2 as http
from aws_cdk import aws_certificatemanager as acm
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

from handler.durations import TRANSCRIPT_DAYS, UNFINISHED_DAYS
from infra.access_log import AccessLog
from infra.choices import Choices
from infra.monitoring import MonitoredResources, Monitoring
from infra.nag_suppressions import acknowledge_findings

# The handler's deadline for the upstream is 25 s on Lambda. The function's timeout is longer, so
# that the handler can report a missed deadline. The gateway's timeout is longer than that of the
# function, so that the gateway can report that the function timed out.
API_TIMEOUT, GATEWAY_TIMEOUT = Duration.seconds(27), Duration.seconds(29)
CUTTER_TIMEOUT = Duration.minutes(15)
# A part may wait 60 s for the upstream's rate limit and 300 s for the response (pacing.py). The
# worker stops 30 s before the timeout (worker.py). The remaining 30 s are for AWS API calls.
TRANSCRIBER_TIMEOUT = Duration.minutes(7)
DEAD_LETTERS_TIMEOUT = Duration.minutes(1)
# With the backoff in worker.py, 200 deliveries are enough for an AWS outage of two days.
MAX_DELIVERIES = 200
# The maximum size of a request body. Encoded in base64, it must fit in a Lambda event of 6 MB.
DIRECT_BYTES = 4_500_000
_PAGE_ROUTES = ("/", "/page.js", "/recorder.js", "/kept.js", "/style.css")
_DOCS_ROUTES = ("/docs", "/docs.js", "/openapi.json")
OPEN_ROUTES = (*_PAGE_ROUTES, *_DOCS_ROUTES, "/api/health", "/api/config")
_CORS_REQUEST_HEADERS = [
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
_LOG_RETENTION = logs.RetentionDays.ONE_MONTH


@dataclass(frozen=True)
class Bundles:
    """The folders of the bundles. `cutter` includes FFmpeg. All other functions use `api`."""

    api: Path
    cutter: Path


class Steno(Stack):
    """The stack: the API, the job functions, and the bucket, queues and table that they share."""

    def __init__(
        self, scope: Construct, name: str, bundles: Bundles, choices: Choices, **props: Any
    ) -> None:
        super().__init__(
            scope, name, description="Steno, a self-hosted speech-to-text API", **props
        )
        self._choices = choices
        # Do not rename the constructs that hold data: test_stack.py checks their logical ids.
        self.openai_key, self.access_token = self._secrets()
        self.dead_letters = self._dead_letters()
        self.recordings = self._queue("Recordings", CUTTER_TIMEOUT)
        self.parts = self._queue("Parts", TRANSCRIBER_TIMEOUT)
        self.express = self._queue("Express", TRANSCRIBER_TIMEOUT)
        self.gateway = self._gateway()
        self.bucket = self._bucket()
        self.table = self._table()
        self.mappings: list[str] = []  # the ids of the event source mappings that process jobs
        self.api = self._api(bundles.api)
        self.cutter = self._cutter(bundles.cutter)
        self.transcriber = self._transcriber(bundles.api)
        self._dead_letter_consumer(bundles.api)
        self._routes()
        self.stage = self._stage()
        self.domain = self._domain() if choices.domain else None
        Monitoring(
            self,
            MonitoredResources(
                self.stage,
                self.api,
                self.cutter,
                self.transcriber,
                self.recordings,
                self.parts,
                self.express,
                self.dead_letters,
            ),
            choices,
        )
        acknowledge_findings(self)
        self._outputs()

    def _secrets(self) -> tuple[secretsmanager.Secret, secretsmanager.Secret]:
        key = secretsmanager.Secret(
            self, "OpenAIKey", description="The OpenAI API key of Steno, as a plain string"
        )
        # The owner sets the key after the deployment, so do not generate a random value.
        child: Any = key.node.default_child
        child.add_property_deletion_override("GenerateSecretString")
        token = secretsmanager.Secret(
            self,
            "AccessToken",
            description="The bearer token for the Steno API",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                exclude_punctuation=True, password_length=43, require_each_included_type=False
            ),
        )
        return key, token

    def _dead_letters(self) -> sqs.Queue:
        # Six times the function's timeout, as AWS recommends:
        # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
        return self._secured_queue(
            "DeadLetters", Duration.seconds(6 * DEAD_LETTERS_TIMEOUT.to_seconds())
        )

    def _queue(self, name: str, timeout: Duration) -> sqs.Queue:
        # Lambda requires a visibility timeout of at least the function's timeout. When a step
        # starts, it shortens the visibility timeout of its message (`claim_seconds` in pacing.py).
        redrive = sqs.DeadLetterQueue(max_receive_count=MAX_DELIVERIES, queue=self.dead_letters)
        return self._secured_queue(name, timeout, dead_letter_queue=redrive)

    def _secured_queue(self, name: str, visibility: Duration, **props: Any) -> sqs.Queue:
        return sqs.Queue(
            self,
            name,
            # Messages must not expire before the recordings and parts that they refer to.
            retention_period=Duration.days(14),
            visibility_timeout=visibility,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            **props,
        )

    def _bucket(self) -> s3.Bucket:
        # The condition contains the account and not the bucket, because this permission must exist
        # before the bucket does: S3 checks the permission when the bucket is created, because the
        # bucket has an event notification.
        from_this_account = {"StringEquals": {"aws:SourceAccount": self.account}}
        notifications = iam.ServicePrincipal("s3.amazonaws.com", conditions=from_this_account)
        self.recordings.add_to_resource_policy(
            iam.PolicyStatement(
                actions=["sqs:SendMessage"],
                principals=[notifications],
                resources=[self.recordings.queue_arn],
            )
        )
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
                    allowed_origins=[*self._choices.origin_list, *self._own_origins()],
                    allowed_headers=["*"],
                    max_age=3600,
                )
            ],
            lifecycle_rules=[
                # Release 0.1 used multipart uploads. Abort the unfinished ones.
                s3.LifecycleRule(
                    prefix="uploads/",
                    expiration=Duration.days(UNFINISHED_DAYS),
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                ),
                s3.LifecycleRule(prefix="requests/", expiration=Duration.days(UNFINISHED_DAYS)),
                s3.LifecycleRule(prefix="parts/", expiration=Duration.days(UNFINISHED_DAYS)),
                s3.LifecycleRule(prefix="transcripts/", expiration=Duration.days(TRANSCRIPT_DAYS)),
            ],
        )
        # Set the property directly. `add_event_notification` would add a Lambda function.
        child: Any = bucket.node.default_child
        child.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            queue_configurations=[
                s3.CfnBucket.QueueConfigurationProperty(
                    event="s3:ObjectCreated:*",
                    queue=self.recordings.queue_arn,
                    filter=s3.CfnBucket.NotificationFilterProperty(
                        s3_key=s3.CfnBucket.S3KeyFilterProperty(
                            rules=[s3.CfnBucket.FilterRuleProperty(name="prefix", value="uploads/")]
                        )
                    ),
                )
            ]
        )
        bucket.node.add_dependency(self.recordings)
        return bucket

    def _own_origins(self) -> list[str]:
        """Return the origins that serve Steno's recorder page."""
        domain = self._choices.domain
        return [self.gateway.api_endpoint, *([f"https://{domain}"] if domain else [])]

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
                recovery_period_in_days=1,  # minimum, because backups contain deleted transcripts
            ),
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )

    def _api(self, code: Path) -> lambda_.Function:
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
            environment["TOKEN_SECRET_ARN"] = self.access_token.secret_arn
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
            self._allow(function, self.access_token.secret_arn, "secretsmanager:GetSecretValue")
        # "Get" is also required for HeadObject, which checks whether a recording was uploaded.
        for prefix in ("uploads", "requests"):
            self._allow_objects(function, prefix, "Get", "Put", "Delete")
        self._allow_objects(function, "parts", "Delete")
        self._allow_objects(function, "transcripts", "Get", "Delete")
        self._allow_send(function, self.recordings)
        self._allow_new_items(function)
        return function

    def _cutter(self, code: Path) -> lambda_.Function:
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
        self._allow_send(function, self.parts, self.express)
        self._allow_new_items(function)
        self._consume(function, self.recordings, self._choices.parts_at_once // 4)
        return function

    def _transcriber(self, code: Path) -> lambda_.Function:
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
        self._allow_send(function, self.recordings)  # requests to split a part
        self._allow_new_items(function)
        batch = self._choices.batch_size
        invocations = ceil(self._choices.parts_at_once / batch)
        self._consume(function, self.parts, invocations, batch)
        self._consume(function, self.express, invocations // 2, batch)
        return function

    def _dead_letter_consumer(self, code: Path) -> None:
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
        self._event_source(function, self.dead_letters, 2)

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
            self, f"{name}Log", retention=_LOG_RETENTION, removal_policy=RemovalPolicy.DESTROY
        )
        role = iam.Role(
            self, f"{name}Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")
        )
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
                "RECORDINGS_QUEUE_URL": self.recordings.queue_url,
                "PARTS_QUEUE_URL": self.parts.queue_url,
                "EXPRESS_QUEUE_URL": self.express.queue_url,
                "TRANSCRIPT_DAYS": str(TRANSCRIPT_DAYS),
                "METRICS_NAMESPACE": self._choices.name,
                **self._optional_environment(),
                **environment,
            },
            **props,
        )
        self._allow(function, log.log_group_arn, "logs:CreateLogStream", "logs:PutLogEvents")
        actions = ("GetItem", "UpdateItem", "DeleteItem", "Query")
        self._allow(function, self.table.table_arn, *(f"dynamodb:{action}" for action in actions))
        # Without ListBucket, S3 returns 403 instead of 404 if an object does not exist.
        self._allow(function, self.bucket.bucket_arn, "s3:ListBucket")
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
        for arn in arns or [self.openai_key.secret_arn]:
            self._allow(function, arn, "secretsmanager:GetSecretValue")

    def _allow_new_items(self, function: lambda_.Function) -> None:
        self._allow(function, self.table.table_arn, "dynamodb:PutItem")

    def _allow_objects(self, function: lambda_.Function, prefix: str, *actions: str) -> None:
        objects = self.bucket.arn_for_objects(f"{prefix}/*")
        self._allow(function, objects, *(f"s3:{action}Object" for action in actions))

    def _allow_send(self, function: lambda_.Function, *queues: sqs.Queue) -> None:
        for queue in queues:
            self._allow(function, queue.queue_arn, "sqs:SendMessage")

    def _gateway(self) -> http.HttpApi:
        return http.HttpApi(
            self,
            "Gateway",
            api_name=self._choices.name,
            create_default_stage=False,
            cors_preflight=http.CorsPreflightOptions(
                allow_origins=self._choices.origin_list,
                allow_methods=[
                    http.CorsHttpMethod.GET,
                    http.CorsHttpMethod.POST,
                    http.CorsHttpMethod.DELETE,
                ],
                allow_headers=_CORS_REQUEST_HEADERS,
                expose_headers=[
                    "location",
                    "retry-after",
                    "steno-model",
                    "x-request-id",
                    "x-should-retry",
                ],
                max_age=Duration.hours(1),
            ),
        )

    def _routes(self) -> None:
        choices = self._choices
        # SnapStart supports only published versions.
        function = self.api if choices.snapstart == "off" else self.api.add_alias("live")
        integration = HttpLambdaIntegration("Api", function, timeout=GATEWAY_TIMEOUT)
        methods = [http.HttpMethod.GET, http.HttpMethod.POST, http.HttpMethod.DELETE]
        for path in OPEN_ROUTES:
            self.gateway.add_routes(
                path=path, methods=[http.HttpMethod.GET], integration=integration
            )
        authorizer = None
        if choices.auth == "jwt":
            authorizer = HttpJwtAuthorizer(
                "Authorizer", choices.issuer, jwt_audience=choices.audience_list
            )
        self.gateway.add_routes(
            path="/{proxy+}", methods=methods, integration=integration, authorizer=authorizer
        )

    def _stage(self) -> http.HttpStage:
        log = logs.LogGroup(
            self,
            "AccessLog",
            # With another prefix, each log group would add an entry to the resource policy of
            # CloudWatch Logs. Deployments fail if the policy has more than 5,120 characters.
            # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/AWS-logs-infrastructure-CWL.html
            log_group_name=f"/aws/vendedlogs/steno/{self.stack_name}",
            retention=_LOG_RETENTION,
            removal_policy=RemovalPolicy.DESTROY,
        )
        return http.HttpStage(
            self,
            "Stage",
            http_api=self.gateway,
            stage_name="$default",
            auto_deploy=True,
            throttle=http.ThrottleSettings(
                rate_limit=self._choices.rate, burst_limit=2 * self._choices.rate
            ),
            access_log_settings=AccessLog(log),
        )

    def _domain(self) -> http.DomainName:
        certificate = acm.Certificate.from_certificate_arn(
            self, "Certificate", self._choices.certificate
        )
        domain = http.DomainName(
            self, "Domain", domain_name=self._choices.domain, certificate=certificate
        )
        http.ApiMapping(
            self, "DomainMapping", api=self.gateway, domain_name=domain, stage=self.stage
        )
        return domain

    def _outputs(self) -> None:
        key, token = self.openai_key.secret_arn, self.access_token.secret_arn
        # The AWS CLI may be configured with another region, or with none.
        aws = f"aws --region {self.region}"
        for name, value in {
            "Url": f"https://{self._choices.domain}/" if self.domain else self.stage.url,
            **({"DomainTarget": self.domain.regional_domain_name} if self.domain else {}),
            # `read` keeps the key out of the shell's history.
            "SetOpenAIKey": 'read -rs KEY && printf %s "$KEY" |'
            f" {aws} secretsmanager put-secret-value --secret-id {key}"
            " --secret-string file:///dev/stdin",
            "ReadAccessToken": f"{aws} secretsmanager get-secret-value"
            f" --query SecretString --output text --secret-id {token}",
            "BucketName": self.bucket.bucket_name,
            "TableName": self.table.table_name,
            "QueueUrl": self.recordings.queue_url,
            "StopJobs": f"for id in {' '.join(self.mappings)}; do"
            f" {aws} lambda update-event-source-mapping --no-enabled --uuid $id; done",
            "ApiFunction": self.api.function_name,
            "CutterFunction": self.cutter.function_name,
            "TranscriberFunction": self.transcriber.function_name,
        }.items():
            CfnOutput(self, name, value=value)
