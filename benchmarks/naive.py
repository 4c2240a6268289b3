"""The tutorial app, the baseline of the benchmarks. Good tutorials contain similar code."""

import json
import os
import tempfile
from typing import Any

import boto3
from fastapi import FastAPI, HTTPException, UploadFile
from fastapi.concurrency import run_in_threadpool
from mangum import Mangum
from openai import OpenAI

s3 = boto3.client("s3") if os.environ.get("BUCKET_NAME") else None


def _key() -> str:
    if arn := os.environ.get("OPENAI_SECRET_ARN"):
        return str(boto3.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
    return os.environ["OPENAI_API_KEY"]


client = OpenAI(api_key=_key())
app = FastAPI()


@app.get("/api/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/api/uploads")
def upload() -> Any:
    assert s3
    return s3.generate_presigned_post(
        os.environ["BUCKET_NAME"], "uploads/recording.webm", ExpiresIn=900
    )


@app.post("/api/transcribe")
async def transcribe(file: UploadFile) -> dict[str, str]:
    content = await file.read()
    handle, path = tempfile.mkstemp(suffix=".webm")
    os.write(handle, content)
    os.close(handle)
    try:
        return {"transcript": await run_in_threadpool(_transcribe, path)}
    except Exception as error:
        raise HTTPException(500, json.dumps(str(error))) from error
    finally:
        os.remove(path)  # noqa: PTH107 - as tutorials do


def _transcribe(path: str) -> str:
    with open(path, "rb") as recording:  # noqa: PTH123 - as tutorials do
        return client.audio.transcriptions.create(model="gpt-transcribe", file=recording).text


lambda_handler = Mangum(app, lifespan="off")
