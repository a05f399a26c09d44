"""Certificates made here, and what is said of those that do not work."""

import contextlib
import datetime
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from small_server import connect, head_of, read_response, running
from whetstone.errors import UserError
from whetstone.serve.net.tls import tls_context

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


def make_pair(
    folder: Path,
    name: str,
    *,
    begins: datetime.datetime = NOW - DAY,
    ends: datetime.datetime = NOW + DAY,
    use: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    encryption: KeySerializationEncryption | None = None,
) -> Pair:
    """A certificate that its own key has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    form = PrivateFormat.PKCS8
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, form, encryption or NoEncryption()))
    return pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"), "good")


def test_answers_over_tls(pair: Pair) -> None:
    client_context = ssl.create_default_context(cafile=str(pair.certificate))
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    with (
        running(tls=tls_context(pair.certificate, pair.key)) as server,
        connect(server.port) as raw,
        client_context.wrap_socket(raw, server_hostname="localhost") as client,
    ):
        for _ in range(2):
            client.sendall(head_of("GET", "/health/live"))
            assert read_response(client)[0] == 200
        assert client.version() == "TLSv1.3"
        client.sendall(head_of("GET", "/health/live", host="evil.test"))
        assert read_response(client)[0] == 403
        client.sendall(b"what?\r\n\r\n")
        status, _, body = read_response(client)
        assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_http")


def test_old_tls_and_no_tls_are_refused(pair: Pair) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with running(tls=tls_context(pair.certificate, pair.key)) as server:
        with connect(server.port) as raw, pytest.raises((ssl.SSLError, ConnectionError)):
            old.wrap_socket(raw)
        with connect(server.port) as client:
            client.sendall(head_of("GET", "/health/live"))
            assert not client.recv(100).startswith(b"HTTP")


def test_a_handshake_may_not_take_long(pair: Pair) -> None:
    context = tls_context(pair.certificate, pair.key)
    with running(tls=context, client={"head_s": 0.3}) as server, connect(server.port) as client:
        assert client.recv(1) == b""


def test_handshakes_that_do_not_come_keep_nobody_out(pair: Pair) -> None:
    client_context = ssl.create_default_context(cafile=str(pair.certificate))
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    silent: list[socket.socket] = []
    with running(tls=tls_context(pair.certificate, pair.key)) as server:
        silent += [connect(server.port) for _ in range(400)]
        with connect(server.port) as raw, client_context.wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(head_of("GET", "/health/live"))
            assert read_response(client)[0] == 200
        closed = 0
        for one in silent:
            one.settimeout(0.001)
            with contextlib.suppress(TimeoutError):
                closed += one.recv(1) == b""
            one.close()
        assert 100 < closed < 200


def refused(certificate: Path, key: Path) -> str:
    with pytest.raises(UserError) as caught:
        tls_context(certificate, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_work_is_said_at_once(pair: Pair, tmp_path: Path) -> None:
    other = make_pair(tmp_path, "other")
    late = make_pair(tmp_path, "late", begins=NOW - 2 * DAY, ends=NOW - DAY)
    early = make_pair(tmp_path, "early", begins=NOW + DAY, ends=NOW + 2 * DAY)
    client = make_pair(tmp_path, "client", use=ExtendedKeyUsageOID.CLIENT_AUTH)
    locked = make_pair(tmp_path, "locked", encryption=BestAvailableEncryption(b"secret"))
    assert "not the key of the certificate" in refused(pair.certificate, other.key)
    assert "has expired" in refused(late.certificate, late.key)
    assert "not yet valid" in refused(early.certificate, early.key)
    assert "purpose" in refused(client.certificate, client.key)
    assert "encrypted" in refused(locked.certificate, locked.key)
    assert "cannot be read (No such file" in refused(tmp_path / "none.crt", pair.key)
    assert "cannot be read (Is a directory" in refused(pair.certificate, tmp_path)
    assert "in PEM form" in refused(pair.key, pair.certificate)
    (tmp_path / "empty").touch()
    assert "in PEM form" in refused(tmp_path / "empty", pair.key)
