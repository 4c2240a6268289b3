"""What the bucket holds.

uploads/      recordings that were uploaded with a form; the bucket sends a message about each
requests/     recordings that came in a request and became jobs
parts/        the sound of the parts of jobs under way
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
    """The objects of one bucket."""

    def __init__(self, aws: AWS, bucket: str, limits: Limits) -> None:
        self._bucket = bucket
        # The bucket's own address: the global one redirects to other regions, which no browser follows with a form.
        virtual = {"addressing_style": "virtual"}
        self.client = aws.limited("s3", limits, signature_version="s3v4", s3=virtual)

    def form(self, key: str, content_type: str, most_bytes: int, seconds: int) -> dict[str, Any]:
        """A presigned POST for one recording, good for so many seconds: `url` and `fields`."""
        upload: dict[str, Any] = self.client.generate_presigned_post(
            self._bucket,
            key,
            Fields={"Content-Type": content_type},
            Conditions=[{"Content-Type": content_type}, ["content-length-range", 1, most_bytes]],
            ExpiresIn=seconds,
        )
        return upload

    @cached_property
    def origin(self) -> str:
        """Where a browser sends its recordings."""
        where = urlsplit(self.form("uploads/", "", 1, 1)["url"])
        return f"{where.scheme}://{where.netloc}"

    def put(self, key: str, recording: BinaryIO, content_type: str) -> None:
        self.client.put_object(
            Bucket=self._bucket, Key=key, Body=recording, ContentType=content_type
        )

    def has(self, key: str) -> bool:
        try:
            self.client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _is_gone(error):
                return False
            raise
        return True

    def fetch(self, key: str, target: Any) -> None:
        """The recording's bytes, into the open file `target`; NotFound if they are gone."""
        with _not_found("The recording is gone."):
            self.client.download_fileobj(self._bucket, key, target)

    def transcript(self, identity: str) -> Transcript:
        """Return a stored transcript; NotFound if it was deleted, also after its job was read."""
        with _not_found("The transcript is gone: its job was deleted, or has expired."):
            answer = self.client.get_object(Bucket=self._bucket, Key=_transcript_key(identity))
        return Transcript.from_json(answer["Body"].read())

    def put_transcript(self, identity: str, transcript: Transcript) -> None:
        self.client.put_object(
            Bucket=self._bucket, Key=_transcript_key(identity), Body=transcript.to_json()
        )

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self._bucket, Key=key)

    def delete_below(self, prefix: str) -> None:
        """Delete all objects whose keys begin with `prefix`."""
        for page in self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        ):
            for found in page.get("Contents", []):
                self.delete(found["Key"])

    def delete_transcript(self, identity: str) -> None:
        self.delete(_transcript_key(identity))


def _transcript_key(identity: str) -> str:
    return f"transcripts/{identity}.json"


@contextmanager
def _not_found(detail: str) -> Iterator[None]:
    """Raise NotFound if S3 answers that there is no such object."""
    try:
        yield
    except ClientError as error:
        if _is_gone(error):
            raise NotFound(detail) from None
        raise


def _is_gone(error: ClientError) -> bool:
    return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] == 404)
