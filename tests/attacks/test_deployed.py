"""Send altered upload forms and forged JWTs to the stack in a local AWS emulator."""

import base64
import hashlib
import hmac
import json
import time

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.attacks.access_monitor import monitor_access
from tests.integration.cloud import deployed_cloud
from tests.integration.issuer import KEY_ID, Issuer
from tests.integration.test_deployment import PROTECTED_ROUTES


@pytest.fixture(scope="module")
def issuer():
    with Issuer.serving() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, engine_process, issuer):
    choices = {"auth": "jwt", "issuer": issuer.url, "audience": "steno"}
    with deployed_cloud(
        tmp_path_factory.mktemp("forged"), openai_base_url=engine_process.url, **choices
    ) as deployed:
        yield deployed


# Forms

ADDED = {
    "acl": "public-read",
    "success_action_redirect": "http://127.0.0.1:9/",
    "success_action_status": "201",
    "redirect": "http://127.0.0.1:9/",
    "tagging": "<Tagging><TagSet/></Tagging>",
    "Cache-Control": "public",
    "Content-Disposition": "inline",
    "Content-Encoding": "gzip",
    "Expires": "Thu, 01 Jan 2099 00:00:00 GMT",
    "x-amz-meta-a": "b",
    "x-amz-acl": "public-read-write",
    "x-amz-storage-class": "GLACIER",
    "x-amz-website-redirect-location": "http://127.0.0.1:9/",
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-customer-algorithm": "AES256",
    "x-amz-tagging": "a=b",
    "x-amz-object-lock-mode": "COMPLIANCE",
}


def other_keys(key, another):
    name = key.removeprefix("uploads/")
    yield from (
        another,
        f"transcripts/{name}",
        f"uploads/../transcripts/{name}",
        f"uploads/./{name}",
        f"uploads//{name}",
    )
    yield from (
        f"/{key}",
        f"{key}/",
        f"{key}/${{filename}}",
        "uploads/${filename}",
        key.upper(),
        f"{key}\0",
        f"{key} ",
    )
    yield from (
        f"uploads/%2e%2e/transcripts/{name}",
        name,
        "",
        "uploads/",
        "x",
        key[:-1],
        f"{key}\r\nx",
        "a" * 2000,
    )


def other_policies(policy):
    """Yield altered policies. Each is sent with the signature of the original policy."""
    original = json.loads(base64.b64decode(policy))
    wider = [
        {**original, "expiration": "2099-01-01T00:00:00Z"},
        {**original, "conditions": []},
        {
            **original,
            "conditions": [
                condition
                for condition in original["conditions"]
                if "content-length-range" not in str(condition)
            ],
        },
        {
            **original,
            "conditions": [
                ["starts-with", "$key", ""],
                ["starts-with", "$Content-Type", ""],
                *original["conditions"],
            ],
        },
        {},
    ]
    yield from (base64.b64encode(json.dumps(allowed).encode()).decode() for allowed in wider)
    yield from (
        policy[:-4],
        policy + "AAAA",
        policy.swapcase(),
        "",
        "e30=",
        json.dumps(original),
        " " + policy + "=",
    )


def altered_forms(form, another):
    """Yield altered forms. In each of them, one field is changed, removed or added."""
    fields, key = form["fields"], form["fields"]["key"]
    for name, value in fields.items():
        yield {other: value_of for other, value_of in fields.items() if other != name}
        for at in {0, len(value) // 2, len(value) - 1}:
            yield {
                **fields,
                name: value[:at] + ("0" if value[at] != "0" else "1") + value[at + 1 :],
            }
        yield from ({**fields, name: text} for text in ("", value + "x", value * 2))
    yield from ({**fields, name: value} for name, value in ADDED.items())
    yield from ({**fields, "key": other} for other in other_keys(key, another))
    yield from ({**fields, "policy": other} for other in other_policies(fields["policy"]))
    for kind in (
        "text/html",
        "audio/webm;codecs=opus",
        "image/svg+xml",
        "AUDIO/WEBM",
        "audio/webm\r\nX-Injected: yes",
    ):
        yield {**fields, "Content-Type": kind}
    date = next(name for name in fields if name.lower() == "x-amz-date")
    yield from (
        {**fields, date: value} for value in ("20990101T000000Z", "20000101T000000Z", "now")
    )


def sent_headers(form, fields):
    return httpx2.post(form["url"], data=fields, files={"file": b"0123456789"}).status_code


def test_an_altered_form_uploads_nothing(cloud, issuer, record_result):
    owner = issuer.header(sub="mine")
    upload_request = {"size": 10, "filename": "voice.webm", "content_type": "audio/webm"}
    form, another = (
        cloud.http.post("/api/uploads", headers=owner, json=upload_request).json()["upload"]
        for _ in range(2)
    )
    altered = [
        fields
        for fields in altered_forms(form, another["fields"]["key"])
        if fields != form["fields"]
    ]
    for fields in altered:
        assert sent_headers(form, fields) in (400, 403, 405, 411, 412, 501), fields
    value_of = cloud.client("s3").list_objects_v2(Bucket=cloud.outputs["BucketName"])
    assert "Contents" not in value_of
    assert sent_headers(form, form["fields"]) == 204
    record_result(
        "Upload forms altered in each field",
        f"{len(altered)} forms",
        "all rejected by the bucket; nothing stored",
    )


# JWTs


def jwt_part(content):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def token(header, claims, sign=lambda _message: b""):
    message = f"{jwt_part(header)}.{jwt_part(claims)}"
    return f"{message}.{jwt_part(sign(message.encode()))}"


def forged_tokens(issuer, monitored_address):
    """Yield JWTs that have no valid signature from the issuer."""
    claims = {"iss": issuer.url, "aud": "steno", "sub": "mine", "exp": int(time.time()) + 600}
    public = httpx2.get(f"{issuer.url}/keys").json()["keys"][0]
    key = jwt.PyJWK(public).key
    yield from (
        token({"alg": algorithm, "typ": "JWT"}, claims)
        for algorithm in ("none", "None", "NONE", "nOnE", "", None, "null")
    )
    yield from (
        token({"alg": "none", "kid": KEY_ID}, claims).rstrip("."),
        token({}, claims),
        token(b"{", claims),
    )
    secrets = [
        *(
            key.public_bytes(Encoding.PEM, kind)
            for kind in (PublicFormat.PKCS1, PublicFormat.SubjectPublicKeyInfo)
        ),
        *(
            key.public_bytes(Encoding.DER, kind)
            for kind in (PublicFormat.PKCS1, PublicFormat.SubjectPublicKeyInfo)
        ),
        *(
            public["n"].encode(),
            json.dumps(public).encode(),
            b"",
            b"secret",
            b"steno",
            issuer.url.encode(),
        ),
    ]
    for name, kind in (
        ("HS256", hashlib.sha256),
        ("HS384", hashlib.sha384),
        ("HS512", hashlib.sha512),
    ):
        for secret in secrets:
            signed = lambda message, secret=secret, kind=kind: hmac.digest(secret, message, kind)  # noqa: E731 - bound to this secret
            yield token({"alg": name, "kid": KEY_ID, "typ": "JWT"}, claims, signed)
    own = rsa.generate_private_key(65537, 2048)
    own_public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key())) | {"kid": KEY_ID}
    names = (
        KEY_ID,
        "second",
        "../../../dev/null",
        "/dev/null",
        monitored_address,
        "' UNION SELECT 'x",
        "",
        None,
        7,
        "a" * 5000,
    )
    headers = [{"kid": name} for name in names]
    headers += [
        {"kid": KEY_ID, pointer: monitored_address} for pointer in ("jku", "x5u", "iss", "url")
    ]
    headers += [
        {"kid": KEY_ID, "jwk": own_public},
        {
            "kid": monitored_address,
            "jku": monitored_address,
            "x5u": monitored_address,
            "jwk": own_public,
        },
    ]
    headers += [
        {"kid": KEY_ID, "x5c": [jwt_part(b"x")]},
        {"kid": KEY_ID, "crit": ["exp"], "cty": "JWT"},
    ]
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256)
    for header in headers:
        yield token(
            {"alg": "RS256", "typ": "JWT", **header},
            claims,
            lambda message: signature.sign(message, own),
        )
    good = issuer.header(**claims)["Authorization"].removeprefix("Bearer ")
    head, body, signed = good.split(".")
    yield from (
        f"{head}.{jwt_part({**claims, **other})}.{signed}"
        for other in ({"sub": "other"}, {"exp": 9**12}, {"a": 1})
    )
    yield from (
        f"{head}.{body}",
        f"{head}.{body}.",
        f".{body}.{signed}",
        f"{head}..{signed}",
        body,
        signed,
        f"{good}.x",
    )
    yield from (
        f"{head}.{body}.{signed[:-8]}",
        f"{head}.{body}.{signed[::-1]}",
        f"{good}.x.y",
        good[1:],
        good.swapcase(),
    )
    other = "A" if signed[40] != "A" else "B"
    yield f"{head}.{body}.{signed[:40]}{other}{signed[41:]}"


def wrong_claims():
    """Yield claims that must be rejected even if the issuer has signed them."""
    now = int(time.time())
    yield from ({"exp": value} for value in (1, now - 3600, 0, -1))
    yield from ({"nbf": now + 3600}, {"nbf": 9**12})
    yield from (
        {"aud": value}
        for value in (
            "elsewhere",
            "",
            "steno2",
            "STENO",
            ["elsewhere"],
            [],
            None,
            "steno elsewhere",
        )
    )
    yield from ({"iss": value} for value in ("https://elsewhere.example", "", "http://127.0.0.1"))
    yield {"sub": ""}


def test_a_forged_expired_or_foreign_jwt_is_rejected(cloud, issuer, tmp_path, record_result):
    with monitor_access(tmp_path) as monitor:
        sent_headers = [
            {"Authorization": f"Bearer {forged_token}"}
            for forged_token in forged_tokens(issuer, monitor.address)
        ]
        sent_headers += [issuer.header(**{"sub": "mine", **claims}) for claims in wrong_claims()]
        sent_headers.append(issuer.header())  # without a subject
        good = issuer.header(sub="mine")
        sent_headers += [
            {"Authorization": good["Authorization"].replace("Bearer", scheme)}
            for scheme in ("Basic", "JWT")
        ]
        sent_headers += [
            {name: good["Authorization"]}
            for name in ("X-Authorization", "Proxy-Authorization", "Cookie")
        ]
        for headers in sent_headers:
            for method, path in PROTECTED_ROUTES:
                response = cloud.http.request(method, path, headers=headers, json={"size": 10})
                assert response.status_code in (400, 401, 403), (method, path, headers)
        assert monitor.accesses() == []
    assert cloud.http.get("/v1/models", headers=good).status_code == 200
    repetitions = f"{len(sent_headers)} tokens, {len(PROTECTED_ROUTES)} routes each"
    record_result(
        "JWTs that are forged, expired, or for another audience or issuer",
        repetitions,
        "all rejected; no address in them was contacted",
    )


PATHS = (
    *(
        "/api/health/../transcribe",
        "/api/health%2F..%2Ftranscribe",
        "//api/transcribe",
        "/api//transcribe",
        "/API/TRANSCRIBE",
    ),
    *(
        "/docs/../api/transcribe",
        "/api/transcribe/",
        "/api/transcribe;/api/health",
        "/api/transcribe?/api/health",
    ),
    *(
        "/api/transcribe%00",
        "/api%2Ftranscribe",
        "/./api/transcribe",
        "/$default/api/transcribe",
        "/api/health#/../x",
    ),
    *(
        "/openapi.json/../v1/models",
        "/v1/models%20",
        "/v1/models/.",
        "/v1//models",
        "/v1/models%3F",
    ),
)


def test_a_path_similar_to_a_public_one_is_not_public(cloud, record_result):
    for path in PATHS:
        for method in ("GET", "POST", "DELETE"):
            response = cloud.http.request(method, path)
            body = response.json() if response.status_code == 200 else {}
            assert response.status_code in (401, 403, 404, 405) or body.get("status") == "ok", (
                method,
                path,
                response.text,
            )
    record_result(
        "Paths similar to public ones",
        f"{len(PATHS)} paths, 3 methods each",
        "all rejected, or answered with the public page",
    )
