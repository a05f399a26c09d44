"""Sockets that are bound, and what is said where they cannot be."""

import resource
import socket

import pytest

from small_server import connect
from whetstone.errors import UserError
from whetstone.serve.net.listener import bind, is_loopback_address, url_of
from whetstone.serve.net.open_files import BESIDES, raise_open_files


def test_a_free_port_is_taken_and_told() -> None:
    [bound] = bind("127.0.0.1", 0)
    with bound:
        port = bound.getsockname()[1]
        assert url_of([bound], "127.0.0.1", tls=False) == f"http://127.0.0.1:{port}"
        assert url_of([bound], "0.0.0.0", tls=True) == f"https://127.0.0.1:{port}"
        assert url_of([bound], "::", tls=False) == f"http://[::1]:{port}"
        with connect(port):  # before anything accepts
            pass


def test_a_port_that_is_taken_is_named_with_the_mend() -> None:
    [bound] = bind("127.0.0.1", 0)
    with bound:
        port = bound.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port: {port} of 127\.0\.0\.1 is in use; .*another"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1", ".."])
def test_a_host_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(UserError, match="is no address of this machine"):
        bind(host, 0)


def test_all_addresses_of_a_name_have_one_port() -> None:
    sockets = bind("localhost", 0)
    assert len({bound.getsockname()[1] for bound in sockets}) == 1
    for bound in sockets:
        bound.close()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)],
)
def test_whether_others_reach_it(host: str, loopback: bool) -> None:
    assert is_loopback_address(host) == loopback


def test_enough_files_may_be_opened() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (700, hard))
        assert raise_open_files(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 700
        assert raise_open_files(1000) == 1000
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1000 + BESIDES
        assert raise_open_files(hard) == hard - BESIDES
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_sockets_are_not_passed_to_children() -> None:
    [bound] = bind("127.0.0.1", 0)
    with bound:
        assert not bound.get_inheritable()
        assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
