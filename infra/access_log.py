"""The format and the destination of the API Gateway access log."""

import jsii
from aws_cdk import aws_apigateway as rest
from aws_cdk import aws_apigatewayv2 as http
from aws_cdk import aws_logs as logs


@jsii.implements(http.IAccessLogSettings)
class AccessLog:
    """Access log settings that write one JSON line for each request.

    The query string is left out because it may contain secrets.
    """

    def __init__(self, group: logs.LogGroup) -> None:
        self._group = group

    @property
    def destination(self) -> http.LogGroupLogDestination:
        return http.LogGroupLogDestination(self._group)

    @property
    def format(self) -> rest.AccessLogFormat:
        names = (
            "requestId",
            "integration.requestId",  # Lambda's request id, also in `x-request-id` and Steno's log
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
        pairs = [f'"{name}":"$context.{name}"' for name in names]
        # API Gateway quotes and escapes the value of this variable itself.
        pairs.append('"error.message":$context.error.messageString')
        return rest.AccessLogFormat.custom(f"{{{','.join(pairs)}}}")
