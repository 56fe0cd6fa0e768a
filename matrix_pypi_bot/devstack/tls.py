"""A certificate authority of the local stack's own, and the certificate that its homeservers show one another."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matrix_pypi_bot.process.secret_files import write_private

# Fixed, so that a clock that is wrong today does not make tomorrow's certificate invalid; nobody outside trusts this authority.
_NOT_BEFORE: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER: Final = datetime.datetime(2049, 12, 31, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files: the authority, and the certificate for `localhost`, 127.0.0.1 and ::1 with its key."""

    authority: Path
    certificate: Path
    key: Path


def ensure_tls(folder: Path) -> Tls:
    """The files in `folder`, made when one is missing."""
    tls = Tls(authority=folder / "ca.crt", certificate=folder / "server.crt", key=folder / "server.key")
    if not all(file.exists() for file in (tls.authority, tls.certificate, tls.key)):
        _make(tls)
    return tls


def _make(tls: Tls) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            issuer, subject, public, x509.random_serial_number(), _NOT_BEFORE, _NOT_AFTER
        ).add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)

    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = name("Matrix-PyPI local stack")
    signs = x509.KeyUsage(
        key_cert_sign=True, crl_sign=True, digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    authority = (
        builder(authority_name, authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    certificate = (
        builder(name("localhost"), authority_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    # The authority's key is not kept: more certificates are made with a new authority.
    write_private(tls.key, key.private_bytes(pem, pkcs8, plain).decode())
    write_private(tls.certificate, certificate.public_bytes(pem).decode())
    write_private(tls.authority, authority.public_bytes(pem).decode())
