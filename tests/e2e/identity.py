"""An identity provider on loopback: discovery, keys, authorization code with PKCE, and signing out.

It hands a code to whoever presses its button, and a token to whoever knows the code, the client's secret and what the
challenge was made of. What it refused, it remembers.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

KEY = rsa.generate_private_key(65537, 2048)
CLIENT, SECRET, AUDIENCE = "aevorium-dashboard", "the-secret-of-the-dashboard", "aevorium-api"


@dataclass
class Provider:
    """The provider, as a test sees it.

    Attributes:
        url: Its address, which is its name.
        roles: What it says of whoever signs in.
        lifetime: Seconds for which it lets an access token count.
        codes: Codes that were given, and what was asked for with them.
        refused: Why it gave no token.
        challenges: How codes were bound to who asked.
        ended: Requests to sign out.
        is_down: Whether it answers nothing but failures.
    """

    url: str = ""
    roles: list[str] = field(default_factory=lambda: ["steward"])
    lifetime: float = 300
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    challenges: list[str] = field(default_factory=list)
    ended: list[dict[str, str]] = field(default_factory=list)
    is_down: bool = False

    def discovery(self) -> dict[str, Any]:
        """What it says of itself."""
        places = {"authorization": "authorize", "token": "token", "end_session": "logout"}
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            **{f"{name}_endpoint": f"{self.url}/{place}" for name, place in places.items()},
            "response_types_supported": ["code"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }

    def keys(self) -> dict[str, Any]:
        """Its public key."""
        public = jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
        return {"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]}

    def tokens(self, asked: dict[str, str]) -> dict[str, Any]:
        """What a code is exchanged for."""
        now = int(time.time())
        about = {"iss": self.url, "sub": "ann", "iat": now}
        identity = {**about, "aud": CLIENT, "nonce": asked["nonce"], "name": "Ann Lee", "exp": now + 300}
        access = {**about, "aud": AUDIENCE, "roles": self.roles, "exp": now + self.lifetime}
        signed = [jwt.encode(claims, KEY, algorithm="RS256", headers={"kid": "one"}) for claims in (identity, access)]
        return {"id_token": signed[0], "access_token": signed[1], "token_type": "Bearer", "expires_in": 300}

    def exchange(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """A token, or None and the reason noted."""
        proof = f"Basic {base64.b64encode(f'{CLIENT}:{SECRET}'.encode()).decode()}"
        asked = self.codes.pop(form.get("code", ""), None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        wrong = (
            "client" if unquote(authorization) != proof
            else "code" if asked is None
            else "redirect" if form.get("redirect_uri") != asked["redirect_uri"]
            else "pkce" if base64.urlsafe_b64encode(verifier).rstrip(b"=").decode() != asked["code_challenge"]
            else None
        )  # fmt: skip
        if wrong is not None or asked is None:
            self.refused.append(str(wrong))
            return None
        return self.tokens(asked)


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = urlsplit(self.path)
            query = dict(parse_qsl(place.query))
            if provider.is_down:
                self._send(503, "text/plain", "down")
            elif place.path == "/.well-known/openid-configuration":
                self._json(provider.discovery())
            elif place.path == "/keys":
                self._json(provider.keys())
            elif place.path == "/authorize":
                inputs = "".join(
                    f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
                    for name, value in query.items()
                )
                form = f'<form action="/agree">{inputs}<button>Sign in as Ann</button></form>'
                head = '<!doctype html><link rel="icon" href="data:,"><title>Provider</title>'
                self._send(200, "text/html", f"{head}{form}")
            elif place.path == "/agree":
                code = secrets.token_urlsafe(16)
                provider.codes[code] = query
                provider.challenges.append(query.get("code_challenge_method", "none"))
                self._go(f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}")
            elif place.path == "/logout":
                provider.ended.append(query)
                self._go(query["post_logout_redirect_uri"])
            else:
                self._send(404, "text/plain", "nothing")

        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            found = provider.exchange(form, self.headers.get("Authorization", ""))
            self._json({"error": "invalid_grant"} if found is None else found, status=400 if found is None else 200)

        def _json(self, content: object, *, status: int = 200) -> None:
            self._send(status, "application/json", json.dumps(content))

        def _send(self, status: int, kind: str, body: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def _go(self, address: str) -> None:
            self.send_response(302)
            self.send_header("Location", address)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def providing() -> Iterator[Provider]:
    """A provider, until the block ends."""
    provider = Provider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(provider))
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
