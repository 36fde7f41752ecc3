"""A certificate authority of the home's own, and from it the certificates of the front door and the processes."""

import contextlib
import ipaddress
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.common.rpc.mutual import NAME, Mutual
from services.embedded.server import write_private

CA_DAYS, SERVER_DAYS, RENEW_DAYS = 3650, 397, 30


@dataclass(frozen=True)
class Certificate:
    """Files, PEM. `ca` is what clients trust."""

    ca: Path
    chain: Path
    key: Path


def certificate(folder: Path, host: str, now: datetime | None = None) -> Certificate:
    """The certificate for `host`, localhost and this machine's name, made or renewed when it ends within 30 days."""
    now = now or datetime.now(UTC)
    files = Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    names = sorted({"localhost", socket.gethostname()})
    addresses = sorted({"127.0.0.1", "::1"} | ({host} if _is_address(host) else set()))
    authority, key = _authority(folder, now)
    if not _current(files.chain, authority, [*names, *addresses], now):
        _issue(files, authority, key, names, addresses, now)
    return files


def internal(folder: Path, now: datetime | None = None) -> Mutual:
    """What Mercat's processes show each other, made or renewed as the front door's. Its authority is another: who has a
    certificate of the front door's is none of them."""
    now = now or datetime.now(UTC)
    folder = folder / "internal"
    files = Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    authority, key = _authority(folder, now)
    if not _current(files.chain, authority, [NAME], now):
        _issue(files, authority, key, [NAME], [], now)
    return Mutual(files.ca, files.chain, files.key)


def _authority(folder: Path, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    with contextlib.suppress(OSError, ValueError):
        known = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and known.not_valid_after_utc > now + timedelta(
            days=SERVER_DAYS
        ):
            return known, key
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Mercat local authority")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    built = (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(folder / "ca.key", key)
    write_private(folder / "ca.pem", built.public_bytes(Encoding.PEM).decode())
    return built, key


def _issue(
    files: Certificate,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: list[str],
    addresses: list[str],
    now: datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mercat")])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, *([] if addresses else [ExtendedKeyUsageOID.CLIENT_AUTH])]
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    built = (
        _builder(subject, authority.subject, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write_key(files.key, key)
    chain = built.public_bytes(Encoding.PEM) + authority.public_bytes(Encoding.PEM)
    write_private(files.chain, chain.decode())


def _current(path: Path, authority: x509.Certificate, wanted: list[str], now: datetime) -> bool:
    try:
        known = x509.load_pem_x509_certificate(path.read_bytes())
        known.verify_directly_issued_by(authority)
        alternatives = known.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # whatever is wrong with it, a new one is the remedy
        return False
    present = {str(value) for value in alternatives.get_values_for_type(x509.DNSName)}
    present |= {str(value) for value in alternatives.get_values_for_type(x509.IPAddress)}
    return set(wanted) <= present and known.not_valid_after_utc > now + timedelta(days=RENEW_DAYS)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def _is_address(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
