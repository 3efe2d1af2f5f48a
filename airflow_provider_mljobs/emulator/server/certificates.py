"""The server's TLS certificate, for clients that can't be configured to speak plain HTTP.

Each start creates a certificate authority, signs one certificate with it, and discards the authority's key. The key of
the certificate stays in memory. The authority is limited to this machine's loopback addresses, so that a program that
trusts it trusts no other host.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

# The variables in which requests, and with it Snowflake's connector, looks for a file of authorities, in this order.
BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_ADDRESS, _NAME = "127.0.0.1", "localhost"
# Clocks of virtual machines may lag, and a server may run for months.
_EARLIER, _LONGEST_RUN = timedelta(days=1), timedelta(days=3650)
_BEGIN = "-----BEGIN CERTIFICATE-----"


class Certificates:
    """The certificate of the server, and the authority by which TLS clients trust it.

    :param bundle: the file to write; it holds the authorities that a client trusts anyway, and the server's own.
    :param environment: the variables that name the authorities a client trusts.
    """

    def __init__(self, bundle: Path, environment: Mapping[str, str] = os.environ) -> None:
        self.bundle = bundle
        authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        authority = _authority(authority_key)
        self.context = _context(_certificate(authority, authority_key, key), key)
        trusted = "\n".join([*_trusted(environment, bundle), _pem(authority)])
        # Programs of an earlier start may be reading it.
        draft = bundle.with_suffix(".new")
        draft.write_text(trusted, encoding="utf-8")
        draft.replace(bundle)


def _authority(key: EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Embedded Snowflake")])
    here = [x509.IPAddress(ip_network(f"{_ADDRESS}/32")), x509.DNSName(_NAME)]
    return (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=here, excluded_subtrees=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def _certificate(
    authority: x509.Certificate, authority_key: EllipticCurvePrivateKey, key: EllipticCurvePrivateKey
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(_ADDRESS)), x509.DNSName(_NAME)])
    return (
        _builder(name, authority.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _LONGEST_RUN)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _context(certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # The ssl module reads keys from files only; this one is in memory.
    with os.fdopen(os.memfd_create("certificate"), "wb") as file:
        file.write(_pem(certificate).encode() + private)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context


def _trusted(environment: Mapping[str, str], own: Path) -> Iterator[str]:
    """Yield the authorities that clients trust without us, as requests chooses them."""
    chosen = next((Path(environment[name]) for name in BUNDLE_VARIABLES if environment.get(name)), None)
    if chosen is None or not chosen.exists():
        import certifi

        chosen = Path(certifi.where())
    if chosen.is_dir():
        # In a directory of OpenSSL's each file has a second name.
        files = {path.resolve() for path in chosen.iterdir() if path.is_file()}
        yield from (path.read_text("utf-8", errors="replace") for path in sorted(files))
        return
    text = chosen.read_text("utf-8", errors="replace")
    # The last certificate of our own file belongs to an earlier start.
    yield text.rpartition(_BEGIN)[0] if own.exists() and chosen.samefile(own) else text


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
