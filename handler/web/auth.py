"""Who may call, and whose the jobs are."""

import hmac
import re
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from handler.errors import Unauthorized
from handler.jobs.job import SHARED_ACCOUNT, Caller
from handler.services import Services
from handler.web.deadline import deadline_of


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
bearer = HTTPBearer(auto_error=False)  # a closed router depends on it for the document's sake


async def _authorize(
    request: Request, services: Services, credentials: HTTPAuthorizationCredentials | None
) -> None:
    auth = services.settings.auth
    origin = request.headers.get("origin")
    if auth == "open" and origin and not _is_allowed_origin(origin, request, services):
        raise Unauthorized(
            f"Pages of {origin[:200]} may not call this server: ALLOWED_ORIGINS does not name them."
        )
    if auth == "jwt" and not subject(request):
        raise Unauthorized("Send a token of the configured issuer as `Authorization: Bearer ...`.")
    if auth == "token":
        expected = await anyio.to_thread.run_sync(services.access_token.get)
        given = credentials.credentials if credentials else ""
        if not given or not hmac.compare_digest(given.encode(), expected.encode()):
            raise Unauthorized("Send the server's access token as `Authorization: Bearer ...`.")


def _is_allowed_origin(origin: str, request: Request, services: Services) -> bool:
    """CORS keeps a stranger's page from reading answers, but not from sending recordings that somebody pays for."""
    settings, host = services.settings, request.headers.get("host", "")
    if origin in settings.allowed_origins or "*" in settings.allowed_origins:
        return True
    # API Gateway answers to its own names alone.
    ours = settings.aws_lambda_function_name is not None or _is_local_host(host)
    return ours and origin in (f"http://{host}", f"https://{host}")


def _is_local_host(host: str) -> bool:
    """Whether no stranger can have a page at that host: an address, or `localhost`. A name leads where its owner says,
    which may be here once his page is loaded (DNS rebinding)."""
    match = re.fullmatch(r"\[?([^\[\]@]+?)\]?(:[0-9]+)?", host)
    name = match[1] if match else ""
    try:
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False


class AuthenticatedRoute(APIRoute):
    """Asks who is calling before anything is read: the framework itself would take a stranger's whole body first."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            services = await _services(request)
            # First, because the token may have to be read from Secrets Manager.
            seconds = services.settings.request_deadline_seconds
            request.state.deadline = deadline_of(request.scope, seconds)
            await _authorize(request, services, await bearer(request))
            return await handle(request)

        return guarded


async def _caller(request: Request, services: ServicesDep) -> Caller:
    owner = subject(request) or ""
    address = request.client.host if request.client else ""
    return Caller(
        owner, owner or (SHARED_ACCOUNT if services.settings.auth == "token" else address)
    )


CallerDep = Annotated[Caller, Depends(_caller)]


def subject(request: Request) -> str | None:
    """Who the gateway's JWT authorizer says is calling; nobody where no gateway stands before us."""
    known: Any = request.scope.get("aws.event", {})
    for key in ("requestContext", "authorizer", "jwt", "claims", "sub"):
        known = known.get(key) if isinstance(known, dict) else None
    return known if isinstance(known, str) else None
