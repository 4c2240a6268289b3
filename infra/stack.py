"""The CDK stack that contains all AWS resources of Steno."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_apigatewayv2 as http
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from aws_cdk.aws_apigatewayv2_authorizers import HttpJwtAuthorizer
from aws_cdk.aws_apigatewayv2_integrations import HttpLambdaIntegration
from constructs import Construct

from handler.durations import TRANSCRIPT_DAYS, UNFINISHED_DAYS
from infra.access_log import AccessLog
from infra.choices import Choices
from infra.functions import (
    CUTTER_TIMEOUT,
    DEAD_LETTERS_TIMEOUT,
    GATEWAY_TIMEOUT,
    LOG_RETENTION,
    TRANSCRIBER_TIMEOUT,
    Functions,
    Resources,
)
from infra.monitoring import MonitoredResources, Monitoring
from infra.nag_suppressions import acknowledge_findings

# With the backoff in worker.py, 200 deliveries are enough for an AWS outage of two days.
MAX_DELIVERIES = 200
_PAGE_ROUTES = ("/", "/recorder.js", "/page/{name}", "/docs", "/openapi.json", "/errors")
OPEN_ROUTES = (*_PAGE_ROUTES, "/api/health", "/api/config")
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
        functions = Functions(
            self,
            choices,
            Resources(
                self.openai_key,
                self.access_token,
                self.dead_letters,
                self.recordings,
                self.parts,
                self.express,
                self.bucket,
                self.table,
            ),
        )
        self.api = functions.add_api(bundles.api)
        self.cutter = functions.add_cutter(bundles.cutter)
        self.transcriber = functions.add_transcriber(bundles.api)
        functions.add_dead_letter_consumer(bundles.api)
        self.mappings = functions.mappings
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
                    "steno-timestamps",
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
            retention=LOG_RETENTION,
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
