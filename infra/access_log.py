"""The access log of the API's stage."""

import jsii
from aws_cdk import aws_apigateway as rest
from aws_cdk import aws_apigatewayv2 as http
from aws_cdk import aws_logs as logs


@jsii.implements(http.IAccessLogSettings)
class AccessLog:
    """Each request as a line of JSON; without its query, which may hold what it should not."""

    def __init__(self, group: logs.LogGroup) -> None:
        self._group = group

    @property
    def destination(self) -> http.LogGroupLogDestination:
        return http.LogGroupLogDestination(self._group)

    @property
    def format(self) -> rest.AccessLogFormat:
        told = (
            "requestId",
            "integration.requestId",  # Lambda's, which the application's log and its responses have
            "identity.sourceIp",
            "authorizer.claims.sub",
            "httpMethod",
            "routeKey",
            "path",
            "status",
            "responseLength",
            "responseLatency",
            "integrationLatency",
            "integrationErrorMessage",
            "authorizer.error",
        )
        pairs = [f'"{name}":"$context.{name}"' for name in told]
        pairs.append(
            '"error.message":$context.error.messageString'
        )  # which has its quotation marks
        return rest.AccessLogFormat.custom(f"{{{','.join(pairs)}}}")
