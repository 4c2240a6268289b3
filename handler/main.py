"""The entry for HTTP: `uvicorn handler.main:app` on a machine, `handler.main.lambda_handler` on Lambda."""

from mangum import Mangum

from handler.api import create_app
from handler.settings import read_settings

app = create_app(read_settings())

# Everything Steno answers is text; what Mangum does not know as text it sends in base64.
lambda_handler = Mangum(app, lifespan="off", text_mime_types=["text/", "application/json", "application/problem+json"])
