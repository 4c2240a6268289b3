"""Test that the OpenAPI document, error codes, stored names and environment variables are stable.

They are compared with tests/public_contract.json. To change them intentionally, delete that file
and run this test, which creates it again. The diff of that file then shows the change.
"""

import json

from handler.errors import StenoError
from handler.settings import Settings
from handler.web.app import create_app
from infra.local.aws import NAME
from tests.conftest import ROOT, settings
from tests.harness import Harness
from tests.samples import long_recording

CONTRACT = ROOT / "tests" / "public_contract.json"


def test_the_public_contract_is_the_same_as_in_the_last_commit(aws):
    document = create_app(settings()).openapi()
    del document["info"]["version"]
    contract = {
        "openapi": document,
        "codes": {
            kind.code: int(kind.status) for kind in errors(StenoError) if "code" in vars(kind)
        },
        "environment": sorted(name.upper() for name in Settings.model_fields),
        "stored": stored_names(Harness(aws, daily_seconds=3600)),
    }
    if not CONTRACT.exists():
        CONTRACT.write_text(
            json.dumps(contract, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        )
        raise AssertionError(
            f"{CONTRACT.name} was regenerated. Review its diff, then run the test again."
        )
    assert contract == json.loads(CONTRACT.read_text())


def errors(kind):
    yield kind
    for subclass in kind.__subclasses__():
        yield from errors(subclass)


def stored_names(harness):
    """Transcribe a recording. Return the names of the fields and folders that are stored."""
    recording = harness.upload_record(harness.upload(long_recording("ogg", 40), prompt="Beckett"))
    harness.handle(recording)
    first, second = harness.part_messages()
    names = {"message of a part": set(json.loads(first["body"])["part"])}
    collect_names(harness, names)
    harness.handle(first)
    collect_names(harness, names)
    harness.handle(second)
    collect_names(harness, names)
    return {kind: sorted(kind_names) for kind, kind_names in names.items()}


def collect_names(harness, names):
    for item in harness.jobs.client.scan(TableName=NAME)["Items"]:
        kind = item["pk"].partition("#")[0] + " " + item["sk"].partition("#")[0]
        names.setdefault("spent caller" if item["sk"].startswith("caller") else kind, set()).update(
            item
        )
    for found in harness.s3.list_objects_v2(Bucket=NAME)["Contents"]:
        folder = found["Key"].partition("/")[0]
        names.setdefault("folders of the bucket", set()).add(folder)
        if folder == "transcripts":
            body = harness.s3.get_object(Bucket=NAME, Key=found["Key"])["Body"].read()
            names.setdefault("transcript", set()).update(json.loads(body))
