"""What is watched: alarms, all to one topic, and a dashboard."""

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

_OLDEST = Duration.minutes(30)  # a recording of hours takes less
_SLOW = Duration.seconds(26)  # the handler ends a request after 25 s; the gateway after 29
_NEAR_THE_END = Duration.seconds(
    5
)  # of a function's time; each ends its work 30 s before it (worker.py)


@dataclass(frozen=True)
class Watched:
    """What alarms and the dashboard are about."""

    stage: http.HttpStage
    api: lambda_.Function
    cutter: lambda_.Function
    transcriber: lambda_.Function
    recordings: sqs.Queue
    parts: sqs.Queue
    express: sqs.Queue
    dead_letters: sqs.Queue

    @property
    def steps(self) -> dict[str, lambda_.Function]:
        """Return the functions that work on jobs, by their names."""
        return {"Cutter": self.cutter, "Transcriber": self.transcriber}

    @property
    def queues(self) -> dict[str, sqs.Queue]:
        """Return the queues of those functions, by their names."""
        return {"Recordings": self.recordings, "Parts": self.parts, "Express": self.express}


class Watching(Construct):
    """Alarms about a stage, the functions of jobs, and their queues."""

    def __init__(self, scope: Construct, watched: Watched, choices: Choices) -> None:
        super().__init__(scope, "Watching")
        self._namespace = choices.name
        self.topic = sns.Topic(self, "Alarms", enforce_ssl=True)
        # A topic with a policy of its own lets nobody in that it does not name.
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
        self._alarm_about_the_upstream(choices)
        self._alarm_about_queues(watched)
        self._alarm_about_functions(watched)
        self._alarm_about_the_api(watched)
        self._dashboard(watched)

    def _alarm_about_the_upstream(self, choices: Choices) -> None:
        self._alarm(
            "RefusedKey",
            self._failures("upstream_credentials"),
            0,
            "The speech service refuses the key.",
        )
        self._alarm(
            "SpentQuota",
            self._failures("upstream_quota"),
            0,
            "The account of the speech service is empty.",
        )
        paid = self._figure("SecondsPaid", "Sum", Duration.days(1))
        self._alarm(
            "SecondsPaid",
            paid,
            float(choices.alarm_seconds),
            "More was paid for in a day than is usual.",
        )

    def _alarm_about_queues(self, watched: Watched) -> None:
        # Not the visible ones, because their consumer deletes them within seconds; and not the sent
        # ones, because SQS does not count the messages that it moves itself.
        dead = watched.dead_letters.metric_number_of_messages_received(statistic="Sum")
        self._alarm("DeadLetters", dead, 0, "A job was given up.")
        for name, queue, what in (
            ("Waiting", watched.recordings, "Recordings wait to be cut."),
            ("PartsWaiting", watched.parts, "Parts of recordings wait to be transcribed."),
            ("ExpressWaiting", watched.express, "Short recordings wait to be transcribed."),
        ):
            age = queue.metric_approximate_age_of_oldest_message(statistic="Maximum")
            self._alarm(name, age, _OLDEST.to_seconds(), what)

        stalled = self._figure("JobsStalled", "Sum")
        self._alarm("JobsStalled", stalled, 0, "A job has made no progress for hours.")

    def _alarm_about_functions(self, watched: Watched) -> None:
        for name, function in watched.steps.items():
            self._alarm(
                f"{name}Errors",
                function.metric_errors(statistic="Sum"),
                0,
                f"The {name.lower()} failed.",
            )
            assert function.timeout
            near = function.timeout.minus(_NEAR_THE_END).to_milliseconds()
            longest = function.metric_duration(statistic="Maximum")
            self._alarm(
                f"{name}NearTheEnd", longest, near, f"The {name.lower()} was about to be cut off."
            )
            dropped = function.metric("RecursiveInvocationsDropped", statistic="Sum")
            self._alarm(
                f"{name}Dropped", dropped, 0, f"AWS took messages of the {name.lower()} for a loop."
            )
        for name, function in {"Api": watched.api, **watched.steps}.items():
            throttled = function.metric_throttles(statistic="Sum")
            self._alarm(
                f"{name}Throttles",
                throttled,
                0,
                "The account runs no more functions at once.",
                periods=3,
            )

    def _alarm_about_the_api(self, watched: Watched) -> None:
        # For a quarter of an hour: a recording that is still being worked on is a 503 to OpenAI's SDKs, a few times.
        server_errors = watched.stage.metric_server_error(statistic="Sum")
        self._alarm("ServerErrors", server_errors, 5, "The API fails.", periods=3)
        self._alarm(
            "Storage", self._failures("storage_unavailable"), 0, "AWS does not respond.", periods=2
        )
        slowest = watched.stage.metric_latency(statistic="p99")
        self._alarm(
            "SlowApi",
            slowest,
            _SLOW.to_milliseconds(),
            "Requests come near the gateway's limit.",
            periods=3,
        )

    def _failures(self, code: str) -> cloudwatch.Metric:
        """Count the failures with a code of the table of errors."""
        return cloudwatch.Metric(
            namespace=self._namespace,
            metric_name="Failures",
            statistic="Sum",
            dimensions_map={"Code": code},
        )

    def _figure(
        self, name: str, statistic: str, period: Duration | None = None
    ) -> cloudwatch.Metric:
        """One of those that the handler tells in its log."""
        return cloudwatch.Metric(
            namespace=self._namespace, metric_name=name, statistic=statistic, period=period
        )

    def _alarm(
        self, name: str, metric: cloudwatch.Metric, beyond: float, what: str, periods: int = 1
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            name,
            metric=metric,
            threshold=beyond,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=periods,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            alarm_description=f"{what} What to do: docs/alarms.md#{name.lower()}",
        )
        alarm.add_alarm_action(SnsAction(self.topic))
        alarm.add_ok_action(SnsAction(self.topic))

    def _dashboard(self, watched: Watched) -> None:
        board = cloudwatch.Dashboard(self, "Dashboard")
        stage, queues = watched.stage, watched.queues.items()
        graphs: dict[str, list[cloudwatch.IMetric]] = {
            "Requests": [
                stage.metric_count(),
                stage.metric_client_error(),
                stage.metric_server_error(),
            ],
            "Latency": [stage.metric_latency(statistic=f"p{share}") for share in (50, 90, 99)],
            "The speech service's latency": [
                self._figure("UpstreamMilliseconds", f"p{share}") for share in (50, 90, 99)
            ],
            "Seconds paid, and parts transcribed": [
                self._figure("SecondsPaid", "Sum"),
                self._figure("Parts", "Sum"),
            ],
            "Jobs": [
                watched.recordings.metric_number_of_messages_sent(
                    label="Begun, and parts that are halved"
                ),
                self._figure("JobsCompleted", "Sum"),
                self._figure("JobsFailed", "Sum"),
            ],
            "Hours paid in a day": [
                cloudwatch.MathExpression(
                    expression="seconds / 3600",
                    using_metrics={"seconds": self._figure("SecondsPaid", "Sum")},
                    period=Duration.days(1),
                    label="Hours",
                )
            ],
            "Refused by the speech service": [
                self._failures("upstream_busy"),
                self._failures("upstream_failed"),
            ],
            "Failures": [
                cloudwatch.MathExpression(
                    expression=f"SEARCH('{{{self._namespace},Code}} MetricName=\"Failures\"', 'Sum')",
                    label="",
                )
            ],
            **{
                name: [
                    function.metric_invocations(),
                    function.metric_errors(),
                    function.metric_throttles(),
                ]
                for name, function in watched.steps.items()
            },
            "Messages that wait": [
                *(
                    queue.metric_approximate_number_of_messages_visible(label=name)
                    for name, queue in queues
                ),
                watched.dead_letters.metric_number_of_messages_received(label="Dead letters"),
            ],
            "Age of the oldest message": [
                queue.metric_approximate_age_of_oldest_message(label=name) for name, queue in queues
            ],
        }
        for title, metrics in graphs.items():
            board.add_widgets(cloudwatch.GraphWidget(title=title, left=metrics, width=12))
