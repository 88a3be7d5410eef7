"""Tokens of an OpenID Connect issuer, which a real server on loopback plays: who is let in, and who never."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient

from aevorium.api.app import ApiOptions, create_app
from aevorium.api.configuration import configure
from aevorium.api.issuer_keys import IssuerKeys
from aevorium.api.oidc import OidcOptions, OidcTokens
from aevorium.api.problems import RetryLater
from aevorium.errors import ConfigError
from aevorium.governance.chain import AuditChain
from aevorium.governance.signing import SigningKey
from aevorium.settings import load_settings
from aevorium.state.store import sqlite_url
from aevorium.workspace import Workspace

AUDIENCE = "aevorium"
RSA, OTHER = (rsa.generate_private_key(65537, 2048) for _ in range(2))
CURVE, EDWARDS = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()


@dataclass
class Issuer:
    """What a provider serves; changed by the tests."""

    url: str = ""
    named: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    is_broken: bool = False
    server: Any = None


def _jwk(key: Any, kid: str, **more: object) -> dict[str, Any]:
    kinds = {"rsa": jwt.algorithms.RSAAlgorithm, "ec": jwt.algorithms.ECAlgorithm, "ed": jwt.algorithms.OKPAlgorithm}
    kind = (
        "rsa" if isinstance(key, rsa.RSAPrivateKey) else "ec" if isinstance(key, ec.EllipticCurvePrivateKey) else "ed"
    )
    return {**kinds[kind].to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **more}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    state = Issuer(keys=[_jwk(RSA, "one", alg="RS256"), _jwk(CURVE, "curve"), _jwk(EDWARDS, "edwards")])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("openid-configuration"):
                content: object = {"issuer": state.named, "jwks_uri": f"{state.url}/keys"}
            else:
                state.asked += 1
                content = {"keys": state.keys}
            body = b"<html>" if state.is_broken else json.dumps(content).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = state.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = state.named = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def _token(issuer: Issuer, key: Any = RSA, kid: str = "one", algorithm: str = "RS256", **claims: object) -> str:
    now = int(time.time())
    content = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 300, "roles": ["auditor"]}
    content = {name: value for name, value in {**content, **claims}.items() if value is not None}
    return jwt.encode(content, key, algorithm=algorithm, headers={"kid": kid})


def _forged(header: dict[str, object], issuer: Issuer, *, secret: bytes | None = None) -> str:
    content = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ann", "exp": time.time() + 300, "roles": ["steward"]}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, content)]
    signed = b".".join(parts)
    mark = b"" if secret is None else hmac.digest(secret, signed, hashlib.sha256)
    return (signed + b"." + base64.urlsafe_b64encode(mark).rstrip(b"=")).decode()


@pytest.fixture
def api(issuer: Issuer, tmp_path: Path) -> Iterator[TestClient]:
    options = ApiOptions(
        workspace=Workspace(tmp_path / "w").create(),
        database=sqlite_url(tmp_path / "api.db"),
        log_key=SigningKey(tmp_path / "audit.key", hint=""),
        oidc=OidcOptions(issuer=issuer.url, audience=AUDIENCE),
    )
    with TestClient(create_app(options), base_url="http://aevorium.example", client=("192.0.2.7", 4000)) as client:
        yield client


def _status(api: TestClient, token: str, path: str = "/health") -> int:
    return api.get(path, headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_good_token_may_do_what_its_roles_may(api: TestClient, issuer: Issuer):
    for key, kid, algorithm in ((RSA, "one", "RS256"), (CURVE, "curve", "ES256"), (EDWARDS, "edwards", "EdDSA")):
        assert _status(api, _token(issuer, key, kid, algorithm)) == 200
    assert _status(api, _token(issuer), "/v1/keys") == 403
    assert _status(api, _token(issuer, roles="steward"), "/v1/keys") == 200
    assert _status(api, _token(issuer, roles=["researcher"]), "/metrics") == 403
    assert _status(api, _token(issuer, roles=["researcher", "auditor"]), "/metrics") == 200
    assert issuer.asked == 1


@pytest.mark.parametrize("roles", [None, [], "root", ["Steward"], ["steward "], {"steward": True}, [["steward"]], 7])
def test_a_claim_that_is_no_role_lets_nobody_in(api: TestClient, issuer: Issuer, roles: object):
    assert _status(api, _token(issuer, roles=roles)) == 403


def test_roles_may_lie_deeper_and_have_other_names(issuer: Issuer):
    def roles(claim: str, names: dict[str, Any], **claims: object) -> frozenset[str]:
        options = OidcOptions(issuer=issuer.url, audience=AUDIENCE, role_claim=claim, roles=names)
        return OidcTokens(options).identify(_token(issuer, **claims)).roles

    assert roles("realm_access.roles", {}, realm_access={"roles": ["engineer"]}) == {"engineer"}
    assert roles("https://a.example/roles", {}, **{"https://a.example/roles": ["engineer"]}) == {"engineer"}
    assert roles("roles", {"it": "engineer"}, roles=["it", "steward"]) == {"engineer"}


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "claims"),
        ({"nbf": 2**33}, "not yet valid"),
        ({"aud": "another"}, "audience"),
        ({"aud": None}, "claims"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"sub": None}, "claims"),
        ({"sub": "a\nb"}, "claims"),
        ({"key": OTHER}, "signature"),
        ({"kid": "two"}, "unknown key"),
        ({"key": OTHER, "kid": "two"}, "unknown key"),
        ({"algorithm": "PS256"}, "algorithm"),
        ({"key": CURVE, "algorithm": "ES256"}, "algorithm"),
    ],
)
def test_a_bad_token_is_refused_and_noted_with_its_reason(
    api: TestClient, issuer: Issuer, tmp_path: Path, claims: dict[str, Any], reason: str
):
    token = _token(issuer, **claims)
    assert _status(api, token) == 401
    (entry,) = AuditChain(Workspace(tmp_path / "w").database).entries_of(["login_failed"])
    assert entry.detail == {"address": "192.0.2.7", "reason": reason, "left_out": 0, "left_out_of_others": 0}
    assert token.split(".")[1] not in json.dumps(entry.model_dump())


def test_no_token_is_its_own_proof(api: TestClient, issuer: Issuer):
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    forged = [
        _forged({"alg": "none", "kid": "one"}, issuer),
        _forged({"alg": "HS256", "kid": "one"}, issuer, secret=public),
        _forged({"alg": ["RS256"], "kid": "one"}, issuer),
        _forged({"alg": "RS256", "kid": {"a": 1}}, issuer),
        _forged({"alg": "RS256", "jwk": _jwk(OTHER, "one"), "kid": "one"}, issuer),
        "..", "a.b.c", "." * 9000, "e30.e30.e30", _token(issuer)[:-2],
        f"{base64.urlsafe_b64encode(b'[' * 5000).decode()}.e30.",
    ]  # fmt: skip
    for token in forged:
        assert _status(api, token) in (401, 429), token[:60]
    assert _status(api, _token(issuer)) == 200
    # A token is not read from where logs of proxies keep it.
    assert api.get("/health", params={"access_token": _token(issuer)}).status_code == 401


def test_keys_are_renewed_when_an_unknown_one_comes_but_not_for_every_forged_one(issuer: Issuer):
    clock = [0.0]
    keys = IssuerKeys(issuer.url, now=lambda: clock[0])
    assert keys.find("one") is not None
    assert [keys.find(f"made-up-{number}") for number in range(50)] == [None] * 50
    assert issuer.asked == 1
    issuer.keys = [_jwk(OTHER, "two")]
    assert keys.find("two") is None
    clock[0] = 31
    assert keys.find("two") is not None
    assert keys.find("one") is None
    assert issuer.asked == 2


def test_keys_outlive_a_short_absence_of_the_issuer_and_no_longer_one(issuer: Issuer):
    clock = [0.0]
    keys = IssuerKeys(issuer.url, now=lambda: clock[0])
    assert keys.find("one") is not None
    issuer.is_broken = True
    clock[0] = 2000
    assert keys.find("one") is not None
    clock[0] = 3601
    with pytest.raises(RetryLater) as caught:
        keys.find("one")
    assert caught.value.code == "ISSUER_UNREACHABLE"
    issuer.is_broken = False
    clock[0] = 3700
    assert keys.find("one") is not None


@pytest.mark.parametrize("damage", ["broken", "another issuer", "plain http"])
def test_an_issuer_that_cannot_be_asked_lets_nobody_in(api: TestClient, issuer: Issuer, damage: str):
    issuer.is_broken = damage == "broken"
    issuer.named = "https://evil.example" if damage == "another issuer" else issuer.named
    if damage == "plain http":
        token, issuer.url = _token(issuer), "http://keys.example"
    else:
        token = _token(issuer)
    answer = api.get("/health", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json()["code"]) == (503, "ISSUER_UNREACHABLE")
    assert int(answer.headers["retry-after"]) > 0


def test_weak_private_and_foreign_keys_do_not_count(issuer: Issuer):
    weak = rsa.generate_private_key(65537, 1024)
    private = {**jwt.algorithms.RSAAlgorithm.to_jwk(RSA, as_dict=True), "kid": "private", "use": "sig"}
    del private["key_ops"]
    shared = {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"}
    issuer.keys = [_jwk(weak, "weak"), private, shared, _jwk(RSA, "enc", use="enc"), _jwk(RSA, "good")]
    keys = IssuerKeys(issuer.url)
    assert [keys.find(name) is not None for name in ("weak", "private", "shared", "enc", "good")] == [False] * 4 + [
        True
    ]


@pytest.mark.parametrize(
    "address", ["http://issuer.example", "ftp://localhost", "issuer", "http://localhost.evil.example"]
)
def test_an_issuer_is_https_or_of_this_machine(address: str):
    with pytest.raises(ConfigError):
        IssuerKeys(address)


def test_an_issuer_is_configured_authentication_and_needs_an_audience(tmp_path: Path):
    flags: dict[str, object] = {"workspace": tmp_path, "api_host": "0.0.0.0", "oidc_issuer": "https://issuer.example"}
    with pytest.raises(ConfigError, match="AEVORIUM_OIDC_AUDIENCE"):
        configure(load_settings(flags).values)
    options = configure(load_settings({**flags, "oidc_audience": AUDIENCE}).values)
    assert options.start_token is None
    assert options.oidc == OidcOptions(issuer="https://issuer.example", audience=AUDIENCE)


def test_an_issuer_that_hangs_holds_few_requests(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aevorium.api.issuer_keys._SECONDS", 2.0)
    waits: list[float] = []

    def ask() -> None:
        started = time.monotonic()
        with pytest.raises(RetryLater):
            keys.find("one")
        waits.append(time.monotonic() - started)

    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        keys = IssuerKeys(f"http://127.0.0.1:{silent.getsockname()[1]}")
        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len([wait for wait in waits if wait > 1]) == 4
    assert max(waits) < 8


def test_an_issuer_proves_itself_by_its_certificate(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(RSA.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    chain, secret = tmp_path / "chain.pem", tmp_path / "secret.pem"
    chain.write_bytes(made.sign(RSA, SHA256()).public_bytes(Encoding.PEM))
    secret.write_bytes(RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, secret)
    issuer.server.socket = context.wrap_socket(issuer.server.socket, server_side=True)
    issuer.url = issuer.named = f"https://localhost:{issuer.server.server_port}"
    with pytest.raises(RetryLater):
        IssuerKeys(issuer.url).find("one")
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    assert IssuerKeys(issuer.url).find("one") is not None
