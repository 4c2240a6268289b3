"""What others rely on: the API document, error codes, stored names and environment variables stay as they are.

They are compared with tests/public_contract.json. To change them on purpose, delete that file and run this test: it
writes the file anew, and its difference in the commit shows what has changed.
"""

import json

from handler.errors import StenoError
from handler.settings import Settings
from handler.web.app import create_app
from infra.local.aws import NAME
from tests.conftest import ROOT, settings
from tests.place import Place
from tests.samples import long_recording

KEPT = ROOT / "tests" / "public_contract.json"


def test_the_public_contract_is_the_same_as_in_the_last_commit(aws):
    document = create_app(settings()).openapi()
    del document["info"]["version"]
    found = {
        "openapi": document,
        "codes": {
            kind.code: int(kind.status) for kind in errors(StenoError) if "code" in vars(kind)
        },
        "environment": sorted(name.upper() for name in Settings.model_fields),
        "stored": stored(Place(aws, daily_seconds=3600)),
    }
    if not KEPT.exists():
        KEPT.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        raise AssertionError(
            f"{KEPT.name} was written anew. Look at its difference, and run the test again."
        )
    assert found == json.loads(KEPT.read_text())


def errors(kind):
    yield kind
    for narrower in kind.__subclasses__():
        yield from errors(narrower)


def stored(place):
    """The names in items, messages, keys and transcripts while a job is transcribed."""
    recording = place.about(place.upload(long_recording("ogg", 40), prompt="Beckett"))
    place.handle(recording)
    first, second = place.part_messages()
    names = {"message of a part": set(json.loads(first["body"])["part"])}
    look(place, names)
    place.handle(first)
    look(place, names)
    place.handle(second)
    look(place, names)
    return {kind: sorted(found) for kind, found in names.items()}


def look(place, names):
    for item in place.jobs.client.scan(TableName=NAME)["Items"]:
        kind = item["pk"].partition("#")[0] + " " + item["sk"].partition("#")[0]
        names.setdefault("spent caller" if item["sk"].startswith("caller") else kind, set()).update(
            item
        )
    for found in place.s3.list_objects_v2(Bucket=NAME)["Contents"]:
        folder = found["Key"].partition("/")[0]
        names.setdefault("folders of the bucket", set()).add(folder)
        if folder == "transcripts":
            body = place.s3.get_object(Bucket=NAME, Key=found["Key"])["Body"].read()
            names.setdefault("transcript", set()).update(json.loads(body))
