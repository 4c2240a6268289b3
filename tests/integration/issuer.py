"""A fake identity provider that issues JWTs."""

import time
from contextlib import contextmanager

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.conftest import serving

KEY_ID = "first"


class Issuer:
    """Signs JWTs for the audience `steno` and publishes its key with OpenID Connect discovery."""

    def __init__(self):
        self.url = ""
        self._key, self._other_key = (rsa.generate_private_key(65537, 2048) for _ in range(2))

    @classmethod
    @contextmanager
    def serving(cls):
        issuer = cls()
        paths = {"/.well-known/openid-configuration": issuer._configuration, "/keys": issuer._keys}
        with serving(
            Starlette(routes=[Route(path, handler) for path, handler in paths.items()])
        ) as issuer.url:
            yield issuer

    async def _configuration(self, _request):
        return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, _request):
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return JSONResponse({"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "RS256"}]})

    def header(self, *, forged=False, **claims):
        """Return an Authorization header with a JWT. A forged JWT is signed with another key."""
        payload = {"iss": self.url, "aud": "steno", "exp": int(time.time()) + 600, **claims}
        token = jwt.encode(
            payload, self._other_key if forged else self._key, "RS256", headers={"kid": KEY_ID}
        )
        return {"Authorization": f"Bearer {token}"}
