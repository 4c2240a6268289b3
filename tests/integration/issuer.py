"""An issuer of JWTs, as an identity provider is one."""

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
    """Signs for the audience `steno`; its key is where OpenID Connect has it."""

    def __init__(self):
        self.url = ""
        self._key, self._another = (rsa.generate_private_key(65537, 2048) for _ in range(2))

    @classmethod
    @contextmanager
    def serving(cls):
        made = cls()
        paths = {"/.well-known/openid-configuration": made._configuration, "/keys": made._keys}
        with serving(
            Starlette(routes=[Route(path, answer) for path, answer in paths.items()])
        ) as made.url:
            yield made

    async def _configuration(self, _request):
        return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, _request):
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return JSONResponse({"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "RS256"}]})

    def header(self, *, forged=False, **claims):
        """What a caller sends; `forged` is signed with a key that is not this issuer's."""
        told = {"iss": self.url, "aud": "steno", "exp": int(time.time()) + 600, **claims}
        token = jwt.encode(
            told, self._another if forged else self._key, "RS256", headers={"kid": KEY_ID}
        )
        return {"Authorization": f"Bearer {token}"}
