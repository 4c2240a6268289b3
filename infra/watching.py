"""What is watched: alarms, all to one topic, and a dashboard."""

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

_NAMESPACE = "Steno"  # handler/metrics.py's
_OLDEST = Duration.minutes(30)  # a recording of hours takes less
_NEAR_THE_END = Duration.seconds(5)  # of the worker's time; by then it has long handed its job on


def _figure(name: str, statistic: str, period: Duration | None = None) -> cloudwatch.Metric:
    """One of those that the handler tells in its log."""
    return cloudwatch.Metric(namespace=_NAMESPACE, metric_name=name, statistic=statistic, period=period)


class Watching(Construct):
    """Alarms about a stage, its worker and the queues between them."""

    def __init__(
        self,
        scope: Construct,
        stage: http.HttpStage,
        worker: lambda_.Function,
        queues: tuple[sqs.Queue, sqs.Queue],
        choices: Choices,
    ) -> None:
        """`queues` are that of the recordings, and that of dead letters."""
        super().__init__(scope, "Watching")
        queue, dead_letters = queues
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
        waiting = queue.metric_approximate_age_of_oldest_message(statistic="Maximum")
        # Not the visible ones, because their consumer deletes them within seconds; and not the sent
        # ones, because SQS does not count the messages that it moves itself.
        dead = dead_letters.metric_number_of_messages_received(statistic="Sum")
        longest = worker.metric_duration(statistic="Maximum")
        self._alarm(
            "DeadLetters",
            dead,
            0,
            "A job was given up: see the log of DeadLetterConsumer, and retry it.",
        )
        self._alarm("Waiting", waiting, _OLDEST.to_seconds(), "Recordings wait: too few workers, or none that gets on.")
        # For a quarter of an hour: a recording that is still being worked on is a 503 to OpenAI's SDKs, a few times.
        self._alarm("ServerErrors", stage.metric_server_error(statistic="Sum"), 5, "The API fails.", periods=3)
        self._alarm("WorkerErrors", worker.metric_errors(statistic="Sum"), 0, "The worker failed.")
        assert worker.timeout
        near = worker.timeout.minus(_NEAR_THE_END).to_milliseconds()
        paid = _figure("SecondsPaid", "Sum", Duration.days(1))
        self._alarm("SecondsPaid", paid, float(choices.alarm_seconds), "More was paid for in a day than is usual.")
        self._alarm("WorkerNearTheEnd", longest, near, "The worker was about to be cut off.")
        self._dashboard(stage, worker, queue, dead_letters)

    def _alarm(self, name: str, metric: cloudwatch.Metric, beyond: float, what: str, periods: int = 1) -> None:
        alarm = cloudwatch.Alarm(
            self,
            name,
            metric=metric,
            threshold=beyond,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=periods,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            alarm_description=what,
        )
        alarm.add_alarm_action(SnsAction(self.topic))

    def _dashboard(
        self, stage: http.HttpStage, worker: lambda_.Function, queue: sqs.Queue, dead_letters: sqs.Queue
    ) -> None:
        board = cloudwatch.Dashboard(self, "Dashboard")
        graphs: dict[str, list[cloudwatch.IMetric]] = {
            "Requests": [stage.metric_count(), stage.metric_client_error(), stage.metric_server_error()],
            "Latency": [stage.metric_latency(statistic=f"p{share}") for share in (50, 90, 99)],
            "The speech service's latency": [_figure("UpstreamMilliseconds", f"p{share}") for share in (50, 90, 99)],
            "Seconds paid, and parts heard": [_figure("SecondsPaid", "Sum"), _figure("Parts", "Sum")],
            "Failures": [
                cloudwatch.MathExpression(
                    expression=f"SEARCH('{{{_NAMESPACE},Code}} MetricName=\"Failures\"', 'Sum')", label=""
                )
            ],
            "Worker": [worker.metric_invocations(), worker.metric_errors(), worker.metric_throttles()],
            "Queues": [
                queue.metric_approximate_number_of_messages_visible(),
                queue.metric_approximate_age_of_oldest_message(),
                dead_letters.metric_number_of_messages_received(),
            ],
        }
        for title, metrics in graphs.items():
            board.add_widgets(cloudwatch.GraphWidget(title=title, left=metrics, width=12))
