"""Who is who on the network: a private authority, the server's certificate, the keys of nodes.

The authority is made once for a workspace and signs the server's certificate at every start; nodes trust nothing but
it. Each node has a key of its own (EC P-384, which Flower's node authentication takes), and the server lets in only
nodes whose public key it was given.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aevorium.errors import ArtefactError
from aevorium.workspace import write_atomically

__all__ = ["Authority", "fingerprint", "load_or_create_node_key", "public_pem", "read_public_key"]

_CURVE, _HASH = ec.SECP384R1(), hashes.SHA384()
_AUTHORITY_DAYS, _SERVER_DAYS = 3650, 365
_SKEW = timedelta(days=1)
"""Certificates are valid from yesterday on: clocks differ."""


class Authority:
    """The private authority of one workspace.

    Args:
        folder: Where its certificate and key lie; made if absent.

    Raises:
        ArtefactError: KEY_INVALID, if the files cannot be used.
        ConfigError: WORKSPACE_UNWRITABLE.
    """

    def __init__(self, folder: Path) -> None:
        self.certificate_file = folder / "ca.crt"
        self._key_file = folder / "ca.key"
        if not self.certificate_file.is_file() or not self._key_file.is_file():
            self._create()
        self._key = _load_private(self._key_file)
        try:
            self._certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        except (OSError, ValueError) as error:
            raise ArtefactError(
                "KEY_INVALID", f"The certificate {str(self.certificate_file)!r} cannot be used. It is not valid PEM."
            ) from error

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the authority's certificate: how a server is told from another. Safe to show."""
        return fingerprint(self.certificate_file.read_bytes())

    def issue(self, hosts: tuple[str, ...]) -> tuple[bytes, bytes]:
        """Makes a server's certificate and key.

        Args:
            hosts: Names and addresses under which nodes reach it; those of this machine are added.

        Returns:
            Certificate and private key, PEM.
        """
        key = ec.generate_private_key(_CURVE)
        names = [_alternative(host) for host in dict.fromkeys((*hosts, "localhost", "127.0.0.1", "::1"))]
        certificate = (
            _builder("aevorium server", issuer=self._certificate.subject, key=key, days=_SERVER_DAYS)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, _HASH)
        )
        return certificate.public_bytes(Encoding.PEM), _private_pem(key)

    def _create(self) -> None:
        key = ec.generate_private_key(_CURVE)
        subject = _name("aevorium private authority")
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _builder("aevorium private authority", issuer=subject, key=key, days=_AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, _HASH)
        )
        _write(self._key_file, _private_pem(key), mode=0o600)
        _write(self.certificate_file, certificate.public_bytes(Encoding.PEM), mode=0o644)


def fingerprint(certificate: bytes) -> str:
    """SHA-256 (hex) of a certificate (PEM). Safe to show.

    Raises:
        ArtefactError: KEY_INVALID.
    """
    try:
        return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()
    except ValueError as error:
        raise ArtefactError("KEY_INVALID", "The authority's certificate cannot be read as PEM.") from error


def load_or_create_node_key(path: Path) -> bytes:
    """A node's private key (PEM), made if absent, readable by its owner alone.

    Raises:
        ArtefactError: KEY_INVALID.
        ConfigError: WORKSPACE_UNWRITABLE.
    """
    if not path.exists():
        _write(path, _private_pem(ec.generate_private_key(_CURVE)), mode=0o600)
    return _private_pem(_load_private(path))


def public_pem(private: bytes) -> bytes:
    """The public half of a private key, both PEM."""
    key = load_pem_private_key(private, password=None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_key(path: Path) -> tuple[bytes, str]:
    """Reads a node's public key file.

    Returns:
        The key (PEM) and its fingerprint: the first 16 hex digits of its SHA-256.

    Raises:
        ArtefactError: KEY_INVALID.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtefactError("KEY_INVALID", f"The public key {str(path)!r} cannot be read as PEM.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ArtefactError("KEY_INVALID", f"The public key {str(path)!r} is not on the curve P-384.")
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem, hashlib.sha256(pem).hexdigest()[:16]


def _load_private(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        mode = path.stat().st_mode
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ArtefactError("KEY_INVALID", f"The private key {str(path)!r} cannot be read as PEM.") from error
    if os.name == "posix" and mode & 0o077:
        raise ArtefactError(
            "KEY_INVALID",
            f"The private key {str(path)!r} can be read by others than its owner.",
            hint=f"Type: chmod 600 {path}",
        )
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ArtefactError("KEY_INVALID", f"The private key {str(path)!r} is not on the curve P-384.")
    return key


def _builder(
    common_name: str, *, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, *, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with write_atomically(path, mode=mode) as temporary:
        temporary.write_bytes(content)
