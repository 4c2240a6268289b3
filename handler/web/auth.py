"""Authorize requests, and identify the caller, who owns the jobs that a request creates."""

import hmac
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from handler.errors import OriginNotAllowed, Unauthorized
from handler.jobs.job import SHARED_ACCOUNT, Caller
from handler.services import Services
from handler.web import origins
from handler.web.deadline import deadline_of


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
# Routers depend on `bearer` so that /openapi.json lists it. AuthenticatedRoute does the check.
bearer = HTTPBearer(
    auto_error=False,
    description=(
        "With AUTH=token, the access token of the server."
        " With AUTH=jwt, a JWT from the configured issuer."
    ),
)


async def _authorize(
    request: Request, services: Services, credentials: HTTPAuthorizationCredentials | None
) -> None:
    auth = services.settings.auth
    origin = request.headers.get("origin")
    if auth == "open" and origin and not origins.is_allowed(origin, request, services.settings):
        raise OriginNotAllowed(
            f"Pages from the origin {origin[:200]} are not allowed to call this server."
            " Add the origin to ALLOWED_ORIGINS (on AWS: deploy with -c origins=...)."
        )
    if auth == "jwt" and not subject(request):
        raise Unauthorized(
            "The request has no valid token from the configured issuer."
            " Send one as `Authorization: Bearer ...`."
        )
    if auth == "token":
        expected = await anyio.to_thread.run_sync(services.access_token.get)
        token = credentials.credentials if credentials else ""
        if not token or not hmac.compare_digest(token.encode(), expected.encode()):
            raise Unauthorized(
                "The access token is missing or wrong. Send it as `Authorization: Bearer ...`."
            )


class AuthenticatedRoute(APIRoute):
    """Authorizes a request before its body is read.

    FastAPI reads the whole body before it runs dependencies, so a dependency would run too late.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def authorize_and_handle(request: Request) -> Response:
            services = await _services(request)
            # Set the deadline first, because reading the token from Secrets Manager takes time.
            seconds = services.settings.request_deadline_seconds
            request.state.deadline = deadline_of(request.scope, seconds)
            await _authorize(request, services, await bearer(request))
            return await handle(request)

        return authorize_and_handle


async def _caller(request: Request, services: ServicesDep) -> Caller:
    owner = subject(request) or ""
    address = request.client.host if request.client else ""
    shared_or_address = SHARED_ACCOUNT if services.settings.auth == "token" else address
    return Caller(owner, account=owner or shared_or_address)


CallerDep = Annotated[Caller, Depends(_caller)]


def subject(request: Request) -> str | None:
    """Return the `sub` claim that the gateway's JWT authorizer has verified, or None."""
    value: Any = request.scope.get("aws.event", {})
    for key in ("requestContext", "authorizer", "jwt", "claims", "sub"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
