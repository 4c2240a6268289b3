"""The entry for HTTP: `uvicorn handler.main:app` on a machine, `handler.main.lambda_handler` on Lambda."""

import gc

gc.disable()  # for cold starts: nothing that imports leave is garbage

from pydantic import BaseModel

BaseModel.model_config["defer_build"] = (
    True  # most models, FastAPI's own of OpenAPI, are never used
)

import os

from mangum import Mangum

from handler import logs
from handler.settings import read_settings
from handler.web.app import create_app
from handler.web.gateway import Gateway

logs.configure(on_lambda="AWS_LAMBDA_FUNCTION_NAME" in os.environ)
app = create_app(read_settings())
if jobs := app.state.services.stored_jobs:
    jobs.client  # noqa: B018 - built now: a start on Lambda has more of a processor than a request has

# Everything Steno answers is text; what Mangum does not know as text it sends in base64.
lambda_handler = Mangum(
    app,
    lifespan="off",
    custom_handlers=[Gateway],
    text_mime_types=["text/", "application/json", "application/problem+json"],
)

gc.freeze()
gc.enable()
