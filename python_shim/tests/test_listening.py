"""Shims that listen: with TLS and without, and what they refuse to do."""

import itertools
import resource
import signal

import grpc
import pytest
from client import Client, detail_of, reason_of
from listeners import Authority, Listener, channel_credentials, write_token

from prunebridge_shim.gen.prunebridge.v1 import session_pb2
from prunebridge_shim.rpc.addresses import Address

TOKEN = "may-change-everything"
TOKENS = {"--token-file": TOKEN}


def handshake(client):
    return client.session.Handshake(session_pb2.HandshakeRequest(protocol_min=1, protocol_max=1), timeout=20)


def unavailable(client):
    with pytest.raises(grpc.RpcError) as caught:
        handshake(client)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def start(tmp_path):
    """Starts shims that end with the test."""
    started = []
    numbers = itertools.count()

    def start(*flags, tokens=TOKENS, **options):
        folder = tmp_path / f"listener{next(numbers)}"
        folder.mkdir()
        started.append(Listener(folder, tokens, *flags, **options))
        return started[-1]

    yield start
    for listener in started:
        listener.process.kill()
        listener.process.communicate()


def refused(listener):
    _, log = listener.process.communicate(timeout=20)
    assert listener.process.returncode == 1
    assert listener.ready["event"] == "failed"
    assert TOKEN not in f"{listener.ready}{log}"
    return listener.ready["reason"], f"{listener.ready['message']} {listener.ready['hint']}"


def test_its_line_says_where_it_is(listener):
    host, port = listener.address.rsplit(":", 1)
    assert (host, listener.ready["event"], listener.ready["pid"]) == ("127.0.0.1", "ready", listener.process.pid)
    assert int(port) > 0
    assert handshake(listener.client(TOKEN)).boot_id == listener.ready["boot_id"]


def test_it_may_open_as_many_files_as_its_user(start, few_files):
    assert resource.prlimit(start().process.pid, resource.RLIMIT_NOFILE) == few_files


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start, number):
    listener = start()
    listener.process.send_signal(number)
    _, log = listener.process.communicate(timeout=20)
    assert listener.process.returncode == 0
    assert "Traceback" not in log


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "example.org:7070"])
def test_a_port_that_others_reach_needs_tls(start, address):
    reason, text = refused(start(address=address))
    assert reason == "INVALID_REQUEST"
    assert "--tls-cert" in text


@pytest.mark.parametrize(
    "address", ["7070", "localhost", "localhost:", "localhost:99999", ":7070", "http://x:1", "unix:"]
)
def test_what_is_no_address_is_refused(start, address):
    reason, text = refused(start(address=address))
    assert reason == "INVALID_REQUEST"
    assert "HOST:PORT" in text


def test_a_port_that_is_taken_is_refused(start, listener):
    reason, text = refused(start(address=listener.address))
    assert reason == "STORAGE_FAILED"
    assert listener.address in text


def test_addresses():
    local = ["localhost:1", "127.0.0.1:1", "127.9.8.7:0", "[::1]:1", "unix:/x"]
    assert [str(Address.parse(text)) for text in local if Address.parse(text).is_local] == local
    for text in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "node-17:1", "localhost.evil.org:1", "[::ffff:10.0.0.1]:1"):
        assert not Address.parse(text).is_local
    assert str(Address.parse("[::1]:0").at(7)) == "[::1]:7"


def test_a_unix_socket_wants_a_folder_of_its_own(start, socket_folder):
    listener = start(address=f"unix:{socket_folder}/s")
    assert handshake(listener.client(TOKEN)).protocol == 1
    assert listener.stop()[0] == 0
    assert list(socket_folder.iterdir()) == []
    socket_folder.chmod(0o755)
    assert refused(start(address=f"unix:{socket_folder}/s"))[0] == "PATH_DENIED"


@pytest.mark.parametrize("missing", ["--root", "--token-file", "--address"])
def test_what_it_cannot_do_without(tmp_path, capfd, missing):
    from prunebridge_shim.__main__ import main

    flags = {"--root": str(tmp_path), "--token-file": "t", "--address": "localhost:0"}
    del flags[missing]
    with pytest.raises(SystemExit):
        main(["listen", *itertools.chain(*flags.items())])
    assert missing in capfd.readouterr().err


def test_token_files_that_will_not_do(start, tmp_path):
    loose = write_token(tmp_path / "loose", "may-look-and-measure")
    loose.chmod(0o644)
    reason, text = refused(start("--read-token-file", loose))
    assert reason == "PATH_DENIED"
    assert "chmod 600" in text
    assert refused(start("--read-token-file", write_token(tmp_path / "same", TOKEN)))[0] == "INVALID_REQUEST"
    assert refused(start("--read-token-file", write_token(tmp_path / "short", "short")))[0] == "INVALID_REQUEST"
    assert refused(start("--read-token-file", tmp_path / "missing"))[0] == "PATH_NOT_FOUND"


def test_tls(start, authority, tmp_path):
    cert, key = authority.issue("server")
    listener = start("--tls-cert", cert, "--tls-key", key, address="0.0.0.0:0")
    port = listener.address.rsplit(":", 1)[1]
    address = f"localhost:{port}"
    assert handshake(Client(address, TOKEN, channel_credentials(authority))).protocol == 1
    with pytest.raises(grpc.RpcError) as caught:
        handshake(Client(address, "a-token-that-is-wrong", channel_credentials(authority)))
    assert reason_of(detail_of(caught.value)) == "UNAUTHENTICATED"
    unavailable(Client(address, TOKEN, channel_credentials(Authority(tmp_path, "another"))))
    unavailable(Client(address, TOKEN))


def test_mutual_tls(start, authority, tmp_path):
    cert, key = authority.issue("server")
    clients = Authority(tmp_path, "clients")
    listener = start("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", clients.cert)
    known = clients.issue("known", "extendedKeyUsage=clientAuth")
    assert handshake(listener.client(TOKEN, channel_credentials(authority, known))).protocol == 1
    unavailable(listener.client(TOKEN, channel_credentials(authority)))
    stranger = authority.issue("stranger", "extendedKeyUsage=clientAuth")
    unavailable(listener.client(TOKEN, channel_credentials(authority, stranger)))


def test_tls_files_that_will_not_do(start, authority, tmp_path):
    cert, key = authority.issue("server")
    _, other_key = authority.issue("other")
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("no certificate")
    for flags in (
        ("--tls-cert", cert, "--tls-key", other_key),
        ("--tls-cert", no_pem, "--tls-key", key),
        ("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", no_pem),
    ):
        reason, text = refused(start(*flags))
        assert reason == "INVALID_REQUEST"
        assert "PEM" in text
    assert refused(start("--tls-cert", cert, "--tls-key", tmp_path / "missing"))[0] == "PATH_NOT_FOUND"


@pytest.mark.parametrize(
    "flags", [("--tls-cert", "x"), ("--tls-key", "x"), ("--tls-client-ca", "x")], ids=lambda flags: flags[0]
)
def test_tls_flags_go_together(start, flags):
    listener = start(*flags)
    assert listener.process.wait(20) == 2
    assert flags[0] in listener.process.stderr.read()
