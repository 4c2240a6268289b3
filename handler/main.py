"""The entry points of the HTTP API: `app` for a local server, `lambda_handler` for Lambda.

To serve the API locally: `uvicorn handler.main:app`.
"""

import gc

# Imports create no garbage, so garbage collection would only slow down cold starts.
gc.disable()

from pydantic import BaseModel

# Build Pydantic models on first use. Most of them belong to FastAPI's OpenAPI code, which few
# requests use.
BaseModel.model_config["defer_build"] = True

import os

from mangum import Mangum

from handler import logs
from handler.settings import read_settings
from handler.web.app import create_app
from handler.web.gateway import Gateway

logs.configure(on_lambda="AWS_LAMBDA_FUNCTION_NAME" in os.environ)
app = create_app(read_settings())
if jobs := app.state.services.stored_jobs:
    # Build the client now, because Lambda provides more CPU in the init phase than afterwards.
    jobs.client  # noqa: B018 - reading the attribute builds it

# All responses are text. Mangum encodes a response as base64 if its media type is not listed here.
lambda_handler = Mangum(
    app,
    lifespan="off",
    custom_handlers=[Gateway],
    text_mime_types=["text/", "application/json", "application/problem+json"],
)

gc.freeze()
gc.enable()
