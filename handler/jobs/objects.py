"""The objects in the S3 bucket.

uploads/      recordings uploaded with a presigned form; S3 sends an event notification for each
requests/     recordings that were sent in the bodies of requests that became jobs
parts/        the audio of the parts of unfinished jobs
transcripts/  the transcripts of completed jobs
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from handler.aws.clients import AWS, Limits
from handler.errors import NotFound
from handler.transcripts.transcript import Transcript


class Objects:
    """Reads and writes the objects of one bucket."""

    def __init__(self, aws: AWS, bucket: str, limits: Limits) -> None:
        self._bucket = bucket
        # Use the regional endpoint of the bucket. The global endpoint may respond with a redirect,
        # which browsers do not follow when they upload a form.
        virtual = {"addressing_style": "virtual"}
        self.client = aws.client_with_limits("s3", limits, signature_version="s3v4", s3=virtual)

    def presigned_post(
        self, key: str, content_type: str, max_bytes: int, seconds: int
    ) -> dict[str, Any]:
        """Return a presigned POST (`url` and `fields`) to upload one recording.

        It is valid for `seconds` seconds. S3 rejects recordings larger than `max_bytes`.
        """
        upload: dict[str, Any] = self.client.generate_presigned_post(
            self._bucket,
            key,
            Fields={"Content-Type": content_type},
            Conditions=[{"Content-Type": content_type}, ["content-length-range", 1, max_bytes]],
            ExpiresIn=seconds,
        )
        return upload

    @cached_property
    def origin(self) -> str:
        """Return the origin (scheme and host) to which browsers upload recordings."""
        url = urlsplit(self.presigned_post("uploads/", "", 1, 1)["url"])
        return f"{url.scheme}://{url.netloc}"

    def put(self, key: str, recording: BinaryIO, content_type: str) -> None:
        self.client.put_object(
            Bucket=self._bucket, Key=key, Body=recording, ContentType=content_type
        )

    def exists(self, key: str) -> bool:
        try:
            self.client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _is_not_found(error):
                return False
            raise
        return True

    def download(self, key: str, target: Any) -> None:
        """Download an object into the open file `target`. Raises NotFound if it does not exist."""
        with _not_found("The recording was deleted or has expired. Upload it again."):
            self.client.download_fileobj(self._bucket, key, target)

    def transcript(self, job_id: str) -> Transcript:
        """Return the stored transcript of a job.

        Raises NotFound if it does not exist, for example if the job was deleted in the meantime.
        """
        with _not_found("The transcript does not exist. Its job was deleted or has expired."):
            response = self.client.get_object(Bucket=self._bucket, Key=_transcript_key(job_id))
        return Transcript.from_json(response["Body"].read())

    def put_transcript(self, job_id: str, transcript: Transcript) -> None:
        self.client.put_object(
            Bucket=self._bucket, Key=_transcript_key(job_id), Body=transcript.to_json()
        )

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self._bucket, Key=key)

    def delete_prefix(self, prefix: str) -> None:
        """Delete all objects whose keys start with `prefix`."""
        for page in self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        ):
            for item in page.get("Contents", []):
                self.delete(item["Key"])

    def delete_transcript(self, job_id: str) -> None:
        self.delete(_transcript_key(job_id))


def _transcript_key(job_id: str) -> str:
    return f"transcripts/{job_id}.json"


@contextmanager
def _not_found(detail: str) -> Iterator[None]:
    """Raise NotFound if S3 responds that the object does not exist."""
    try:
        yield
    except ClientError as error:
        if _is_not_found(error):
            raise NotFound(detail) from None
        raise


def _is_not_found(error: ClientError) -> bool:
    return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] == 404)
