"""Tokens and rights: of a real shim over its socket, and their parts."""

import contextlib
import os
import uuid

import grpc
import pytest
from client import TOKEN, Client, detail_of, reason_of, spawn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, session_pb2, work_pb2
from prunebridge_shim.rpc import tokens
from prunebridge_shim.rpc.access import ALL_RIGHTS, READ_ONLY, Access, Right
from prunebridge_shim.rpc.health import SERVING, Request, Response
from prunebridge_shim.rpc.options import FAILED_TOKENS_AT_ONCE
from prunebridge_shim.rpc.tokens import read_token_file, read_token_line

CHANGE_TOKEN, READ_TOKEN = "may-change-everything", "may-look-and-measure"


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value, detail_of(caught.value)


def handshake(client):
    return client.session.Handshake(session_pb2.HandshakeRequest(protocol_min=1, protocol_max=1), timeout=60)


@pytest.fixture
def shim_and_log(socket_folder):
    """A shim of its own, and a function that ends it and gives its log."""
    process, ready = spawn(socket_folder)

    def log():
        process.terminate()
        return process.communicate(timeout=40)[1]

    yield ready["address"], log
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.communicate()


@pytest.mark.parametrize(
    "token",
    [None, "", "x" * 22, TOKEN[:-1], TOKEN + "x", TOKEN.upper()],
    ids=["none", "empty", "other", "shorter", "longer", "upper"],
)
def test_a_call_without_the_token_is_refused(shim_and_log, token):
    address, log = shim_and_log
    error, detail = refusal(lambda: handshake(Client(address, token)))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(detail) == "UNAUTHENTICATED"
    assert "--token-file" in detail.hint
    text = log()
    assert "without a known token" in text
    for secret in (TOKEN, token or TOKEN):
        assert secret not in text + detail.message + detail.hint + error.details()


def test_every_method_but_health_asks_for_it(shim_and_log):
    client = Client(shim_and_log[0], token="some-other-token")
    feed = iter([operation_pb2.FeedRequest(feed_id="x")])
    for call in (
        lambda: client.start(close_model=work_pb2.CloseModel(model_id="x")),
        lambda: client.watch("x"),
        lambda: client.cancel("x"),
        lambda: client.read("x"),
        lambda: list(client.feeds.Feed(feed, timeout=20)),
        lambda: handshake(client),
    ):
        assert reason_of(refusal(call)[1]) == "UNAUTHENTICATED"
    check = client.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=Request.SerializeToString,
        response_deserializer=Response.FromString,
    )
    assert check(Request(), timeout=20).status == SERVING


def test_a_request_is_not_read_before_its_token(shim_and_log):
    client = Client(shim_and_log[0], token=None)
    call = client.channel.unary_unary("/prunebridge.v1.OperationService/Start")
    for metadata in ((), (("authorization", "Bearer nothing-that-is-known"),)):
        _, detail = refusal(lambda metadata=metadata: call(b"\xff no message", timeout=20, metadata=metadata))
        assert reason_of(detail) == "UNAUTHENTICATED"
    two = [("authorization", f"Bearer {TOKEN}")] * 2
    assert reason_of(refusal(lambda: call(b"", timeout=20, metadata=two))[1]) == "UNAUTHENTICATED"


def test_many_wrong_tokens_are_refused_unlogged_and_the_right_one_works(shim_and_log):
    address, log = shim_and_log
    wrong = Client(address, token="guess-after-guess")
    reasons = [reason_of(refusal(lambda: handshake(wrong))[1]) for _ in range(3 * FAILED_TOKENS_AT_ONCE)]
    assert reasons[:FAILED_TOKENS_AT_ONCE] == ["UNAUTHENTICATED"] * FAILED_TOKENS_AT_ONCE
    assert "LIMIT_EXCEEDED" in reasons
    assert handshake(Client(address)).protocol == 1
    assert log().count("without a known token") < 2 * FAILED_TOKENS_AT_ONCE


def test_the_parents_token_gives_all_rights(shim_and_log):
    assert list(handshake(Client(shim_and_log[0])).rights) == [session_pb2.RIGHT_READ, session_pb2.RIGHT_CHANGE]


@pytest.mark.parametrize("token", ["", "short", "two words of some length"])
def test_a_parent_that_gives_no_token_gets_no_shim(socket_folder, token):
    process, line = spawn(socket_folder, token=token)
    _, log = process.communicate(timeout=20)
    assert (line["event"], line["reason"]) == ("failed", "INVALID_REQUEST")
    assert "stdin" in line["message"]
    assert not token or token not in f"{line}{log}"


def test_rights_are_the_protocols():
    wire = {name.removeprefix("RIGHT_"): number for name, number in session_pb2.Right.items()}
    del wire["UNSPECIFIED"]
    assert wire == {right.name: right.value for right in Right}


def test_access_knows_each_token_and_no_other():
    access = Access({CHANGE_TOKEN: ALL_RIGHTS, READ_TOKEN: READ_ONLY})
    for token, rights in ((CHANGE_TOKEN, ALL_RIGHTS), (READ_TOKEN, READ_ONLY)):
        assert access.find([("x", "y"), ("authorization", f"Bearer {token}")]).rights == rights
    for value in (CHANGE_TOKEN, f"bearer {CHANGE_TOKEN}", "Bearer ", f"Basic {READ_TOKEN}", f"Bearer {READ_TOKEN} "):
        assert access.find([("authorization", value)]) is None
    assert access.find([]) is None
    assert CHANGE_TOKEN not in repr(vars(access))


@pytest.mark.parametrize("kind", ["slice", "cut_model"])
def test_the_right_to_read_changes_nothing(kind):
    reader = Access({READ_TOKEN: READ_ONLY}).of_call([("authorization", f"Bearer {READ_TOKEN}")])
    with pytest.raises(ShimError, match=f"{kind} needs the right to change") as caught:
        reader.check(kind)
    assert caught.value.reason is Reason.RIGHT_DENIED
    assert "--token-file" in caught.value.hint


@pytest.mark.parametrize(
    ("work", "allowed"),
    [
        (work_pb2.OpenNetwork(built=work_pb2.BuiltNetwork(entrypoint="m:f")), False),
        (work_pb2.OpenNetwork(pruned_dir="pruned"), False),
        (work_pb2.OpenNetwork(checkpoint_dir="resnet"), True),
    ],
)
def test_the_right_to_read_builds_no_network_by_a_function(work, allowed):
    reader = Access({READ_TOKEN: READ_ONLY}).of_call([("authorization", f"Bearer {READ_TOKEN}")])
    with contextlib.nullcontext() if allowed else pytest.raises(ShimError, match="needs the right to change"):
        reader.check("open_network", work)


def test_every_kind_of_work_has_its_right():
    reader = Access({READ_TOKEN: READ_ONLY}).of_call([("authorization", f"Bearer {READ_TOKEN}")])
    kinds = {field.name for field in operation_pb2.StartRequest.DESCRIPTOR.oneofs_by_name["work"].fields}
    allowed = set()
    for kind in kinds:
        with contextlib.suppress(ShimError):
            reader.check(kind)
            allowed.add(kind)
    assert kinds - allowed == {"slice", "cut_model", "save_model", "calibrate_norms", "save_network"}


def refused_file(path):
    with pytest.raises(ShimError) as caught:
        read_token_file(path)
    assert "secret" not in caught.value.message + caught.value.hint
    return caught.value


def test_a_token_file(tmp_path):
    path = tmp_path / "token"
    path.touch(mode=0o600)
    for text, reason in (
        ("", Reason.INVALID_REQUEST),
        ("  \n", Reason.INVALID_REQUEST),
        ("secret-of-15-by", Reason.INVALID_REQUEST),
        ("secret " * 8, Reason.INVALID_REQUEST),
        ("secret\n" * 8, Reason.INVALID_REQUEST),
        ("secr\u00e9t" * 8, Reason.INVALID_REQUEST),
        ("secret" * 500, Reason.INVALID_REQUEST),
    ):
        path.write_text(text)
        assert refused_file(path).reason is reason
    path.write_text("  secret-of-16-byt\n")
    assert read_token_file(path) == "secret-of-16-byt"
    for mode in (0o640, 0o604, 0o620, 0o666):
        path.chmod(mode)
        error = refused_file(path)
        assert error.reason is Reason.PATH_DENIED
        assert f"mode {mode:o}" in error.message


def test_a_token_file_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path):
        error = refused_file(path)
        assert error.reason is Reason.INVALID_REQUEST
        assert f"{path} is no regular file" in error.message


def test_a_token_file_of_another_user(tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("secret-of-16-byt\n")
    user = os.geteuid()
    if user == 0:
        assert read_token_file(path) == "secret-of-16-byt"
        os.chown(path, 4321, -1)
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    error = refused_file(path)
    assert error.reason is Reason.PATH_DENIED
    assert "belongs to user" in error.message


def test_the_first_line_of_a_stream(monkeypatch):
    def read(data, *, close=True):
        read_fd, write_fd = os.pipe()
        os.write(write_fd, data)
        if close:
            os.close(write_fd)
        try:
            return read_token_line(read_fd)
        finally:
            os.close(read_fd)
            if not close:
                os.close(write_fd)

    assert read(b"a-token-of-the-parent\nwhatever", close=False) == "a-token-of-the-parent"
    monkeypatch.setattr(tokens, "LINE_SECONDS", 0.1)
    for data, close in ((b"", True), (b"", False), (b"a-token-cut-short-by-its-end", True), (b"x" * 4000, False)):
        with pytest.raises(ShimError, match="no line with a token"):
            read(data, close=close)


def test_the_shim_reads_and_cancels_for_readers_and_changes_for_others(listener):
    reader, changer = listener.client(READ_TOKEN), listener.client(CHANGE_TOKEN)
    assert list(handshake(reader).rights) == [session_pb2.RIGHT_READ]
    root = listener.root
    work = work_pb2.Slice(source_dir=str(root), job_dir=str(root / "job"), feed_id=uuid.uuid4().hex)
    error, detail = refusal(lambda: reader.start(slice=work))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason_of(detail) == "RIGHT_DENIED"
    assert not (root / "job").exists()
    operation = changer.start(slice=work)
    assert reason_of(refusal(lambda: reader.cancel(operation))[1]) == "RIGHT_DENIED"
    changer.cancel(operation)
    assert reason_of(reader.watch(operation)[-1].failed) == "CANCELLED"
    loss = work_pb2.EvaluateLoss(model_id="x", feed_id=uuid.uuid4().hex)
    waiting = reader.start(evaluate_loss=loss)
    reader.cancel(waiting)
    assert reader.watch(waiting)[-1].HasField("failed")
