"""Dialling out: a job's server is reached over a connection that the job opened."""

import contextlib
import re
import socket
import ssl
import time
from pathlib import Path

import pytest
from client import Client, spawn
from listeners import Authority
from orchestrators import Orchestrator

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import session_pb2
from prunebridge_shim.rpc import dialing
from prunebridge_shim.rpc.dialing import Dialer, Dialing

SECRET = "shared-by-both-ends"


@pytest.fixture
def target(socket_folder):
    """The socket of a real shim."""
    process, ready = spawn(socket_folder)
    yield Path(ready["address"].removeprefix("unix:"))
    process.terminate()
    process.communicate(timeout=40)


@pytest.fixture
def dial(target):
    with contextlib.ExitStack() as stack:

        def start(address, ca=None, token=SECRET):
            dialer = Dialer(Dialing.parse(address, ca), token, target)
            stack.callback(dialer.close)
            return dialer

        yield start


@pytest.fixture
def orchestrator():
    with contextlib.closing(Orchestrator(SECRET)) as made:
        yield made


def handshake(address):
    request = session_pb2.HandshakeRequest(protocol_min=1, protocol_max=1)
    return Client(address).session.Handshake(request, timeout=20)


def test_a_client_reaches_the_shim_over_the_connection(dial, orchestrator):
    dial(f"localhost:{orchestrator.port}")
    _, address = orchestrator.take()
    assert handshake(address).protocol == 1
    assert orchestrator.lines == [{"prunebridge_dial": 1, "token": SECRET}]


def test_it_dials_again_when_a_connection_ends(dial, orchestrator):
    dial(f"127.0.0.1:{orchestrator.port}")
    boots = set()
    for _ in range(2):
        connection, address = orchestrator.take()
        boots.add(handshake(address).boot_id)
        with contextlib.suppress(OSError):  # the client may have hung up already
            connection.shutdown(socket.SHUT_RDWR)
    assert len(boots) == 1


def test_connections_are_carried_beside_each_other_and_one_waits(dial, orchestrator):
    dial(f"127.0.0.1:{orchestrator.port}")
    addresses = [orchestrator.take()[1] for _ in range(3)]
    clients = [Client(address) for address in addresses]
    request = session_pb2.HandshakeRequest(protocol_min=1, protocol_max=1)
    boots = {client.session.Handshake(request, timeout=20).boot_id for _ in range(2) for client in clients}
    assert len(boots) == 1


def test_there_is_a_pause_when_connections_are_taken_and_dropped(dial, orchestrator, monkeypatch):
    monkeypatch.setattr(dialing, "FIRST_PAUSE_SECONDS", 60.0)
    dial(f"127.0.0.1:{orchestrator.port}")
    connection, _ = orchestrator.take()
    orchestrator._listening.settimeout(1.5)
    with pytest.raises(TimeoutError):
        for _ in range(20):
            connection.shutdown(socket.SHUT_RDWR)
            connection, _ = orchestrator.take()


@pytest.mark.parametrize("answer", ['{"error": "no"}', "[]", "HTTP/1.1 400 Bad Request", "{" + " " * 5000, "[" * 4000])
def test_an_end_that_refuses_gets_no_byte_of_the_shim_and_is_dialled_again(dial, orchestrator, answer):
    dial(f"127.0.0.1:{orchestrator.port}")
    connection, _ = orchestrator.take(answer)
    connection.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""
    assert handshake(orchestrator.take()[1]).protocol == 1


def test_pauses_grow_while_nobody_takes_it(dial, orchestrator, caplog):
    orchestrator.close()
    dial(f"127.0.0.1:{orchestrator.port}")
    said = re.compile(r"again in (.+) s")
    until = time.monotonic() + 30
    while len(said.findall(caplog.text)) < 3:
        assert time.monotonic() < until, caplog.text
        time.sleep(0.05)
    assert said.findall(caplog.text)[:3] == ["0.5", "1", "2"]
    assert SECRET not in caplog.text


def test_what_no_dialling_is_known_to_raise_does_not_end_it(dial, caplog):
    # The name has a part that is too long to be looked up, which Python finds out as it encodes it.
    dial(f"{64 * 'a'}.example:7443")
    until = time.monotonic() + 30
    while caplog.text.count("a defect of the shim; dialling") < 2:
        assert time.monotonic() < until, caplog.text
        time.sleep(0.05)


def test_it_waits_for_as_long_as_it_is_not_taken(dial, orchestrator, monkeypatch, caplog):
    monkeypatch.setattr(dialing, "CONNECT_SECONDS", 0.2)
    dialer = dial(f"127.0.0.1:{orchestrator.port}")
    time.sleep(1.0)
    assert not caplog.messages
    assert handshake(orchestrator.take()[1]).protocol == 1
    dialer.close()
    assert not dialer._thread.is_alive()


def test_a_closed_dialer_hangs_up(dial, orchestrator):
    dialer = dial(f"127.0.0.1:{orchestrator.port}")
    connection, address = orchestrator.take()
    handshake(address)
    with orchestrator._accept() as waiting:
        dialer.close()
        while connection.fileno() != -1:
            time.sleep(0.01)
        waiting.settimeout(10)
        while waiting.recv(1 << 16):
            pass
    orchestrator._listening.settimeout(1.5)
    with pytest.raises(TimeoutError):
        orchestrator.take()


def test_other_machines_are_proven_by_their_certificates(dial, tmp_path):
    # To Linux it is this machine, and to us it is not known as such.
    host = "0.0.0.0"
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server", f"subjectAltName=IP:{host}"))
    with contextlib.closing(Orchestrator(SECRET, context, host)) as orchestrator:
        dial(f"{host}:{orchestrator.port}", Authority(tmp_path, "another").cert)
        with pytest.raises(ssl.SSLError):
            orchestrator.take()
        assert orchestrator.lines == []
        dial(f"{host}:{orchestrator.port}", authority.cert)
        while True:
            with contextlib.suppress(ssl.SSLError):
                _, address = orchestrator.take()
                break
        assert handshake(address).protocol == 1


@pytest.mark.parametrize("text", ["unix:/x", "host:0", "host", ":7443"])
def test_what_is_no_address_to_dial(text):
    with pytest.raises(ShimError) as caught:
        Dialing.parse(text, None)
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_authorities_that_are_none(tmp_path):
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(ShimError, match="cannot use"):
        Dialing.parse("example.org:7443", tmp_path / "ca").context()
