"""Create the FastAPI application with its routes, middleware and error handlers."""

import logging

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from handler import __version__
from handler.services import Services, build_services
from handler.settings import Settings
from handler.web import job_routes, openapi, pages, routes
from handler.web.drain import DrainRejectedBody
from handler.web.error_handlers import HandleUnexpectedErrors, add_error_handlers
from handler.web.origins import any_port_pattern
from handler.web.request_id import RequestId

log = logging.getLogger("steno")


def create_app(settings: Settings, services: Services | None = None) -> FastAPI:
    """Return the application. If `services` is None, the services are built from the settings."""
    services = services or build_services(settings)
    app = openapi.DocumentedApp(
        title="Steno",
        summary="Self-hosted speech-to-text API.",
        description=openapi.DESCRIPTION,
        servers=[{"url": "/", "description": "This server"}],
        openapi_tags=[{"name": tag} for tag in openapi.TAGS],
        version=__version__,
        redirect_slashes=False,
        docs_url=None,  # handler.web.pages serves /docs
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        # Steno does not collect telemetry.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    app.include_router(routes.public_router)
    app.include_router(routes.authenticated_router)
    app.include_router(job_routes.router)
    app.include_router(pages.router)
    add_error_handlers(app)
    app.add_middleware(HandleUnexpectedErrors)
    app.add_middleware(DrainRejectedBody)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_origin_regex=any_port_pattern(settings.allowed_origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],  # OpenAI's SDK adds about a dozen headers
        expose_headers=[
            "Location",
            "Retry-After",
            "Steno-Model",
            "Steno-Timestamps",
            "x-request-id",
            "x-should-retry",
        ],
    )
    app.add_middleware(RequestId)
    if warning := services.models.warning():
        log.warning(warning)
    return app
