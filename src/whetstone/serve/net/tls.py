"""Certificates that work are told from those that do not before anybody connects."""

import ssl
from collections.abc import Callable
from pathlib import Path

from whetstone.errors import UserError

__all__ = ["tls_context"]

_FLIGHTS = 4
"""A handshake of TLS 1.3 takes two flights of each side."""


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and later with a certificate, and the chain to its issuer where the file holds one.

    The context is tried in a handshake with itself, by a client that trusts the certificate: that finds one that has
    expired or that is not meant for servers.

    Args:
        certificate: A file in PEM form, the server's own certificate first.
        key: Its key, not encrypted.

    Raises:
        UserError: A file cannot be read, they do not belong together, or the certificate is not valid now.
    """
    _check_readable("--tls-cert", certificate)
    _check_readable("--tls-key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password(key))
    except ssl.SSLError as error:
        raise UserError(_plain(certificate, key, error)) from None
    _try(context, certificate)
    return context


def _check_readable(option: str, file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise UserError(f"{option}: {file}: cannot be read ({error.strerror}); give a file in PEM form") from None


def _no_password(key: Path) -> Callable[[], str]:
    """Is asked for the password of a key where one is needed; else OpenSSL would ask the terminal."""

    def refuse() -> str:
        raise UserError(f"--tls-key: {key}: the key is encrypted; give one that is not, such as 'openssl pkey' writes")

    return refuse


def _plain(certificate: Path, key: Path, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"--tls-key: {key}: not the key of the certificate {certificate}; give the two that belong together"
    return f"--tls-cert, --tls-key: {certificate} and {key} are not a certificate and a key in PEM form; mend them"


def _try(context: ssl.SSLContext, certificate: Path) -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server),
        context.wrap_bio(to_server, to_client, server_side=True),
    ]
    try:
        for side in sides * _FLIGHTS:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        raise UserError(f"--tls-cert: {certificate}: {error.verify_message}; get one that is valid now") from None
    except ssl.SSLError as error:
        raise UserError(f"--tls-cert: {certificate}: a client could not use it ({error.reason}); get another") from None
