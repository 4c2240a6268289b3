"""The stack deployed to a local AWS that checks signatures and JWTs: forms and tokens that were forged."""

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

from tests.attacks.canaries import canaries
from tests.integration.cloud import deployed
from tests.integration.issuer import KEY_ID, Issuer
from tests.integration.test_deployment import GUARDED


@pytest.fixture(scope="module")
def issuer():
    with Issuer.serving() as made:
        yield made


@pytest.fixture(scope="module")
def cloud(tmp_path_factory, engine_process, issuer):
    choices = {"auth": "jwt", "issuer": issuer.url, "audience": "steno"}
    with deployed(
        tmp_path_factory.mktemp("forged"), openai_base_url=engine_process.url, **choices
    ) as made:
        yield made


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
    """The policy as somebody would rather have it, under the signature of the one that was given."""
    told = json.loads(base64.b64decode(policy))
    wider = [
        {**told, "expiration": "2099-01-01T00:00:00Z"},
        {**told, "conditions": []},
        {
            **told,
            "conditions": [
                held for held in told["conditions"] if "content-length-range" not in str(held)
            ],
        },
        {
            **told,
            "conditions": [
                ["starts-with", "$key", ""],
                ["starts-with", "$Content-Type", ""],
                *told["conditions"],
            ],
        },
        {},
    ]
    yield from (base64.b64encode(json.dumps(made).encode()).decode() for made in wider)
    yield from (
        policy[:-4],
        policy + "AAAA",
        policy.swapcase(),
        "",
        "e30=",
        json.dumps(told),
        " " + policy + "=",
    )


def altered(form, another):
    """What a form can be made into: each field altered, left out, or beside one that was never there."""
    fields, key = form["fields"], form["fields"]["key"]
    for name, value in fields.items():
        yield {other: held for other, held in fields.items() if other != name}
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
    yield from ({**fields, date: when} for when in ("20990101T000000Z", "20000101T000000Z", "now"))


def sent(form, fields):
    return httpx2.post(form["url"], data=fields, files={"file": b"0123456789"}).status_code


def test_a_form_that_was_altered_uploads_nothing(cloud, issuer, tried):
    mine = issuer.header(sub="mine")
    ask = {"size": 10, "filename": "voice.webm", "content_type": "audio/webm"}
    form, another = (
        cloud.http.post("/api/uploads", headers=mine, json=ask).json()["upload"] for _ in range(2)
    )
    tries = [
        fields for fields in altered(form, another["fields"]["key"]) if fields != form["fields"]
    ]
    for fields in tries:
        assert sent(form, fields) in (400, 403, 405, 411, 412, 501), fields
    held = cloud.client("s3").list_objects_v2(Bucket=cloud.outputs["BucketName"])
    assert "Contents" not in held
    assert sent(form, form["fields"]) == 204
    tried(
        "Upload forms altered in each field",
        f"{len(tries)} forms",
        "all refused by the bucket; nothing stored",
    )


# JWTs


def part(told):
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def token(header, claims, sign=lambda _message: b""):
    message = f"{part(header)}.{part(claims)}"
    return f"{message}.{part(sign(message.encode()))}"


def forged(issuer, canary):
    """JWTs that the issuer never signed, or not like this."""
    claims = {"iss": issuer.url, "aud": "steno", "sub": "mine", "exp": int(time.time()) + 600}
    public = httpx2.get(f"{issuer.url}/keys").json()["keys"][0]
    key = jwt.PyJWK(public).key
    yield from (
        token({"alg": none, "typ": "JWT"}, claims)
        for none in ("none", "None", "NONE", "nOnE", "", None, "null")
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
            signed = lambda message, secret=secret, kind=kind: hmac.digest(secret, message, kind)  # noqa: E731 - of this secret
            yield token({"alg": name, "kid": KEY_ID, "typ": "JWT"}, claims, signed)
    own = rsa.generate_private_key(65537, 2048)
    own_public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key())) | {"kid": KEY_ID}
    names = (
        KEY_ID,
        "second",
        "../../../dev/null",
        "/dev/null",
        canary,
        "' UNION SELECT 'x",
        "",
        None,
        7,
        "a" * 5000,
    )
    headers = [{"kid": name} for name in names]
    headers += [{"kid": KEY_ID, pointer: canary} for pointer in ("jku", "x5u", "iss", "url")]
    headers += [
        {"kid": KEY_ID, "jwk": own_public},
        {"kid": canary, "jku": canary, "x5u": canary, "jwk": own_public},
    ]
    headers += [
        {"kid": KEY_ID, "x5c": [part(b"x")]},
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
        f"{head}.{part({**claims, **other})}.{signed}"
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
    """What the issuer has signed, and not for here or for now."""
    now = int(time.time())
    yield from ({"exp": when} for when in (1, now - 3600, 0, -1))
    yield from ({"nbf": now + 3600}, {"nbf": 9**12})
    yield from (
        {"aud": who}
        for who in ("elsewhere", "", "steno2", "STENO", ["elsewhere"], [], None, "steno elsewhere")
    )
    yield from ({"iss": who} for who in ("https://elsewhere.example", "", "http://127.0.0.1"))
    yield {"sub": ""}


def test_a_jwt_that_was_forged_or_is_not_for_here_or_now_opens_nothing(
    cloud, issuer, tmp_path, tried
):
    with canaries(tmp_path) as watched:
        sent = [{"Authorization": f"Bearer {made}"} for made in forged(issuer, watched.address)]
        sent += [issuer.header(**{"sub": "mine", **claims}) for claims in wrong_claims()]
        sent.append(issuer.header())  # whose it is it does not say
        good = issuer.header(sub="mine")
        sent += [
            {"Authorization": good["Authorization"].replace("Bearer", scheme)}
            for scheme in ("Basic", "JWT")
        ]
        sent += [
            {name: good["Authorization"]}
            for name in ("X-Authorization", "Proxy-Authorization", "Cookie")
        ]
        for headers in sent:
            for method, path in GUARDED:
                answer = cloud.http.request(method, path, headers=headers, json={"size": 10})
                assert answer.status_code in (400, 401, 403), (method, path, headers)
        assert watched.knocks() == []
    assert cloud.http.get("/v1/models", headers=good).status_code == 200
    times = f"{len(sent)} tokens, {len(GUARDED)} routes each"
    tried(
        "JWTs forged, expired or for somebody else",
        times,
        "all refused; none in; no address in them asked",
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


def test_a_path_that_looks_like_an_open_one_opens_nothing(cloud, tried):
    for path in PATHS:
        for method in ("GET", "POST", "DELETE"):
            answer = cloud.http.request(method, path)
            told = answer.json() if answer.status_code == 200 else {}
            assert answer.status_code in (401, 403, 404, 405) or told.get("status") == "ok", (
                method,
                path,
                answer.text,
            )
    tried(
        "Paths that look like open ones",
        f"{len(PATHS)} paths, 3 methods each",
        "all refused, or the open page itself",
    )
