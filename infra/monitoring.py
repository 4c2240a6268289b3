"""The monitoring of the stack: CloudWatch alarms, their SNS topic, and a dashboard."""

from dataclasses import dataclass

from aws_cdk import Duration, Stack
from aws_cdk import aws_apigatewayv2 as http
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from aws_cdk.aws_cloudwatch_actions import SnsAction
from aws_cdk.aws_sns_subscriptions import EmailSubscription
from constructs import Construct

from infra.choices import Choices

_MAX_MESSAGE_AGE = Duration.minutes(30)  # even recordings of several hours take less time
_SLOW_REQUEST = Duration.seconds(26)  # the handler's deadline is 25 s, the gateway's is 29 s
# An alarm is raised if an invocation ends less than 5 s before the timeout of its function. Workers
# stop 30 s before the timeout (SHUTDOWN_SECONDS in handler/worker.py).
_TIMEOUT_MARGIN = Duration.seconds(5)


@dataclass(frozen=True)
class MonitoredResources:
    """The resources that the alarms and the dashboard cover."""

    stage: http.HttpStage
    api: lambda_.Function
    cutter: lambda_.Function
    transcriber: lambda_.Function
    recordings: sqs.Queue
    parts: sqs.Queue
    express: sqs.Queue
    dead_letters: sqs.Queue

    @property
    def job_functions(self) -> dict[str, lambda_.Function]:
        """Return the functions that process jobs, by name."""
        return {"Cutter": self.cutter, "Transcriber": self.transcriber}

    @property
    def queues(self) -> dict[str, sqs.Queue]:
        """Return the queues of the job functions, by name."""
        return {"Recordings": self.recordings, "Parts": self.parts, "Express": self.express}


class Monitoring(Construct):
    """Alarms and a dashboard for the API, the job functions and their queues."""

    def __init__(self, scope: Construct, resources: MonitoredResources, choices: Choices) -> None:
        super().__init__(scope, "Watching")
        self._namespace = choices.name
        self.topic = sns.Topic(self, "Alarms", enforce_ssl=True)
        # A topic policy replaces the default policy, so it must allow CloudWatch to publish.
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                actions=["sns:Publish"],
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                resources=[self.topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            )
        )
        if choices.alarm_email:
            self.topic.add_subscription(EmailSubscription(choices.alarm_email))
        self._add_upstream_alarms(choices)
        self._add_queue_alarms(resources)
        self._add_function_alarms(resources)
        self._add_api_alarms(resources)
        self._add_dashboard(resources)

    def _add_upstream_alarms(self, choices: Choices) -> None:
        self._alarm(
            "RefusedKey",
            self._failures("upstream_credentials"),
            0,
            "The upstream rejects the API key.",
        )
        self._alarm(
            "SpentQuota",
            self._failures("upstream_quota"),
            0,
            "The upstream account has no credit left.",
        )
        paid = self._metric("SecondsPaid", "Sum", Duration.days(1))
        self._alarm(
            "SecondsPaid",
            paid,
            float(choices.alarm_seconds),
            "More seconds of audio were paid for in a day than alarm_seconds allows.",
        )

    def _add_queue_alarms(self, resources: MonitoredResources) -> None:
        # This alarm uses the metric for received messages. The metric for visible messages may miss
        # messages, because the consumer deletes them within seconds. The metric for sent messages
        # does not include messages that SQS moves to a dead-letter queue.
        dead = resources.dead_letters.metric_number_of_messages_received(statistic="Sum")
        self._alarm(
            "DeadLetters", dead, 0, "A message reached its delivery limit, and its job failed."
        )
        for name, queue, problem in (
            (
                "Waiting",
                resources.recordings,
                "A recording has waited for more than 30 minutes to be cut.",
            ),
            (
                "PartsWaiting",
                resources.parts,
                "A part has waited for more than 30 minutes to be transcribed.",
            ),
            (
                "ExpressWaiting",
                resources.express,
                "A short recording has waited for more than 30 minutes to be transcribed.",
            ),
        ):
            age = queue.metric_approximate_age_of_oldest_message(statistic="Maximum")
            self._alarm(name, age, _MAX_MESSAGE_AGE.to_seconds(), problem)

        stalled = self._metric("JobsStalled", "Sum")
        self._alarm("JobsStalled", stalled, 0, "A job has made no progress for hours.")

    def _add_function_alarms(self, resources: MonitoredResources) -> None:
        for name, function in resources.job_functions.items():
            self._alarm(
                f"{name}Errors",
                function.metric_errors(statistic="Sum"),
                0,
                f"An invocation of the {name.lower()} failed.",
            )
            assert function.timeout
            threshold = function.timeout.minus(_TIMEOUT_MARGIN).to_milliseconds()
            longest = function.metric_duration(statistic="Maximum")
            self._alarm(
                f"{name}NearTheEnd",
                longest,
                threshold,
                f"The {name.lower()} almost reached its timeout.",
            )
            dropped = function.metric("RecursiveInvocationsDropped", statistic="Sum")
            self._alarm(
                f"{name}Dropped",
                dropped,
                0,
                f"Lambda detected a recursive loop and dropped messages for the {name.lower()}.",
            )
        for name, function in {"Api": resources.api, **resources.job_functions}.items():
            throttled = function.metric_throttles(statistic="Sum")
            self._alarm(
                f"{name}Throttles",
                throttled,
                0,
                "Lambda throttles invocations because the account's concurrency is used up.",
                periods=3,
            )

    def _add_api_alarms(self, resources: MonitoredResources) -> None:
        # A few 503 responses are normal: OpenAI's SDKs receive them while a long recording is
        # transcribed. The alarm therefore requires errors in three periods of 5 minutes.
        server_errors = resources.stage.metric_server_error(statistic="Sum")
        self._alarm("ServerErrors", server_errors, 5, "The API returns 5xx responses.", periods=3)
        self._alarm(
            "Storage",
            self._failures("storage_unavailable"),
            0,
            "S3, SQS or DynamoDB does not respond.",
            periods=2,
        )
        slowest = resources.stage.metric_latency(statistic="p99")
        self._alarm(
            "SlowApi",
            slowest,
            _SLOW_REQUEST.to_milliseconds(),
            "The slowest requests almost reach the gateway's timeout.",
            periods=3,
        )

    def _failures(self, code: str) -> cloudwatch.Metric:
        """Return the metric that counts failures with the error code `code`."""
        return cloudwatch.Metric(
            namespace=self._namespace,
            metric_name="Failures",
            statistic="Sum",
            dimensions_map={"Code": code},
        )

    def _metric(
        self, name: str, statistic: str, period: Duration | None = None
    ) -> cloudwatch.Metric:
        """Return a metric that the handler writes to its log (embedded metric format)."""
        return cloudwatch.Metric(
            namespace=self._namespace, metric_name=name, statistic=statistic, period=period
        )

    def _alarm(
        self, name: str, metric: cloudwatch.Metric, threshold: float, problem: str, periods: int = 1
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            name,
            metric=metric,
            threshold=threshold,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=periods,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            alarm_description=f"{problem} What to do: docs/operations/alarms.md#{name.lower()}",
        )
        alarm.add_alarm_action(SnsAction(self.topic))
        alarm.add_ok_action(SnsAction(self.topic))

    def _add_dashboard(self, resources: MonitoredResources) -> None:
        dashboard = cloudwatch.Dashboard(self, "Dashboard")
        for title, metrics in (self._work_graphs(resources) | _load_graphs(resources)).items():
            dashboard.add_widgets(cloudwatch.GraphWidget(title=title, left=metrics, width=12))

    def _work_graphs(self, resources: MonitoredResources) -> dict[str, list[cloudwatch.IMetric]]:
        """Return the metrics of requests, the upstream and jobs, by the title of their graph."""
        stage = resources.stage
        return {
            "Requests": [
                stage.metric_count(),
                stage.metric_client_error(),
                stage.metric_server_error(),
            ],
            "Latency": [stage.metric_latency(statistic=f"p{percent}") for percent in (50, 90, 99)],
            "Upstream latency": [
                self._metric("UpstreamMilliseconds", f"p{percent}") for percent in (50, 90, 99)
            ],
            "Seconds paid and parts transcribed": [
                self._metric("SecondsPaid", "Sum"),
                self._metric("Parts", "Sum"),
            ],
            "Jobs": [
                resources.recordings.metric_number_of_messages_sent(
                    label="Jobs started, plus parts to split"
                ),
                self._metric("JobsCompleted", "Sum"),
                self._metric("JobsFailed", "Sum"),
            ],
            "Hours paid per day": [
                cloudwatch.MathExpression(
                    expression="seconds / 3600",
                    using_metrics={"seconds": self._metric("SecondsPaid", "Sum")},
                    period=Duration.days(1),
                    label="Hours",
                )
            ],
            "Rejected by the upstream": [
                self._failures("upstream_busy"),
                self._failures("upstream_failed"),
            ],
            "Failures": [
                cloudwatch.MathExpression(
                    expression=f"SEARCH('{{{self._namespace},Code}}"
                    " MetricName=\"Failures\"', 'Sum')",
                    label="",
                )
            ],
        }


def _load_graphs(resources: MonitoredResources) -> dict[str, list[cloudwatch.IMetric]]:
    """Return the metrics of the functions and queues, by the title of their graph."""
    queues = resources.queues.items()
    return {
        **{
            name: [
                function.metric_invocations(),
                function.metric_errors(),
                function.metric_throttles(),
            ]
            for name, function in resources.job_functions.items()
        },
        "Waiting messages": [
            *(
                queue.metric_approximate_number_of_messages_visible(label=name)
                for name, queue in queues
            ),
            resources.dead_letters.metric_number_of_messages_received(label="Dead letters"),
        ],
        "Age of the oldest message": [
            queue.metric_approximate_age_of_oldest_message(label=name) for name, queue in queues
        ],
    }
