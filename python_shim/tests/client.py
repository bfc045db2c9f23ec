"""A client for tests: a spawned shim, and the calls that a stranger would make."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import uuid
from concurrent.futures import Future
from pathlib import Path

import grpc
import numpy as np

from prunebridge_shim.gen.prunebridge.v1 import (
    error_pb2,
    operation_pb2,
    operation_pb2_grpc,
    session_pb2_grpc,
    tensor_pb2,
)

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
DTYPES = {
    "int64": "DTYPE_I64",
    "int32": "DTYPE_I32",
    "uint8": "DTYPE_U8",
    "float32": "DTYPE_F32",
    "float64": "DTYPE_F64",
}


TOKEN = "the-token-of-the-tests"


def spawn(folder, *, allow=(), roots=(), prelude=None, stdin=subprocess.PIPE, **named):
    """Starts a shim; gives the process and its readiness line. `prelude` is Python that runs before it."""
    read_fd, write_fd = os.pipe()
    flags = ["serve", "--socket", f"{folder}/{named.get('socket', 'shim.sock')}", "--ready-fd", str(write_fd)]
    flags += ["--parent-pid", str(named.get("parent", os.getpid()))]
    flags += [flag for name in allow for flag in ("--allow-python", name)]
    flags += [flag for root in roots for flag in ("--root", str(root))]
    start = ["-m", "prunebridge_shim"]
    if prelude is not None:
        run = "import runpy, sys; runpy.run_module('prunebridge_shim', run_name='__main__')"
        start = ["-c", f"{prelude}\n{run}"]
    env = {**os.environ, "PYTHONPATH": f"{PACKAGE_ROOT}:{PACKAGE_ROOT / 'tests'}", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, *start, *flags], stdin=stdin, stderr=subprocess.PIPE, pass_fds=[write_fd], env=env, text=True
    )
    os.close(write_fd)
    if stdin is subprocess.PIPE:
        process.stdin.write(f"{named.get('token', TOKEN)}\n")
        process.stdin.flush()
    with os.fdopen(read_fd) as stream:
        line = stream.read()
    return process, json.loads(line) if line else None


class Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Gives each call a token."""

    def __init__(self, token):
        self._metadata = () if token is None else (("authorization", f"Bearer {token}"),)

    def _intercept(self, continuation, details, request):
        metadata = (*(details.metadata or ()), *self._metadata)
        return continuation(details._replace(metadata=metadata), request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _intercept


class Client:
    """Stubs on one channel."""

    def __init__(self, address, token=TOKEN, credentials=None):
        options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            channel = grpc.insecure_channel(address, options=options)
        else:
            channel = grpc.secure_channel(address, credentials, options=options)
        self.channel = grpc.intercept_channel(channel, Bearer(token))
        self.session = session_pb2_grpc.SessionServiceStub(self.channel)
        self.operations = operation_pb2_grpc.OperationServiceStub(self.channel)
        self.feeds = operation_pb2_grpc.FeedServiceStub(self.channel)

    def start(self, request_id=None, **work):
        request = operation_pb2.StartRequest(request_id=request_id or uuid.uuid4().hex, **work)
        return self.operations.Start(request, timeout=20).operation_id

    def watch(self, operation_id, after_seq=0):
        request = operation_pb2.WatchRequest(operation_id=operation_id, after_seq=after_seq)
        return list(self.operations.Watch(request, timeout=60))

    def cancel(self, operation_id):
        self.operations.Cancel(operation_pb2.CancelRequest(operation_id=operation_id), timeout=20)

    def feed(self, feed_id, batches):
        return self.feed_in_background(feed_id, batches).result(60).batches

    def feed_in_background(self, feed_id, batches):
        return FeedCall(self.feeds.Feed(feed_messages(feed_id, batches), timeout=60))

    def feed_raw(self, messages):
        return FeedCall(self.feeds.Feed(iter(messages), timeout=60)).result(60)

    def read(self, operation_id):
        """The tensors that an operation left, as numpy arrays."""
        request = operation_pb2.ReadResultRequest(operation_id=operation_id)
        return arrays_of([response.chunk for response in self.operations.ReadResult(request, timeout=60)])

    def run(self, batches=None, **work):
        """Runs work to its end; gives the last event and the tensors."""
        ((_, request),) = work.items()
        if batches is not None:
            request.feed_id = uuid.uuid4().hex
        operation_id = self.start(**work)
        if batches is not None:
            with contextlib.suppress(grpc.RpcError):
                self.feed(request.feed_id, batches)
        last = self.watch(operation_id)[-1]
        return last, self.read(operation_id) if last.HasField("succeeded") else {}

    def fail(self, batches=None, **work):
        """Runs work that fails; gives the reason's name and the message."""
        last, _ = self.run(batches, **work)
        assert last.HasField("failed"), last
        return reason_of(last.failed), last.failed.message


class FeedCall:
    """A feed whose answers are read on a thread, by the number of their batch."""

    def __init__(self, call):
        self._call = call
        self._done = Future()
        self._answered = threading.Condition()
        self.answers = {}
        threading.Thread(target=self._read, daemon=True).start()

    def result(self, timeout):
        return self._done.result(timeout)

    def await_answer(self, batch):
        with self._answered:
            assert self._answered.wait_for(lambda: batch in self.answers, 60)
        return self.answers[batch]

    def cancel(self):
        self._call.cancel()

    def _read(self):
        chunks = []
        try:
            for response in self._call:
                part = response.WhichOneof("part")
                if part == "chunk":
                    chunks.append(response.chunk)
                elif part == "answer_end":
                    with self._answered:
                        self.answers[response.answer_end.batch] = arrays_of(chunks)
                        self._answered.notify_all()
                    chunks = []
                else:
                    self._done.set_result(response.feed_taken)
        except grpc.RpcError as error:
            self._done.set_exception(error)


def arrays_of(chunks):
    """The tensors that chunks make up, as numpy arrays."""
    infos, data = {}, {}
    for chunk in chunks:
        if chunk.HasField("info"):
            name = chunk.info.name
            infos[name], data[name] = chunk.info, bytearray()
        assert chunk.offset == len(data[name])
        data[name] += chunk.data
    names = {wire: name for name, wire in DTYPES.items()}
    kinds = {name: names[tensor_pb2.Dtype.Name(info.dtype)] for name, info in infos.items()}
    return {n: np.frombuffer(data[n], kinds[n]).reshape(infos[n].shape) for n in infos}


class Asking(dict):
    """A batch that asks for something."""

    def __init__(self, returns, **tensors):
        super().__init__(**tensors)
        self.returns = f"RETURNS_{returns}"


def reason_of(detail):
    return error_pb2.ErrorReason.Name(detail.reason).removeprefix("ERROR_REASON_")


def detail_of(error):
    """The detail that a failed call carries."""
    packed = dict(error.trailing_metadata())["prunebridge-error-bin"]
    return error_pb2.ErrorDetail.FromString(packed)


def chunk(name, array, offset=0, data=None):
    info = tensor_pb2.TensorInfo(name=name, dtype=DTYPES[array.dtype.name], shape=array.shape)
    return tensor_pb2.TensorChunk(info=info, offset=offset, data=array.tobytes() if data is None else data)


def feed_messages(feed_id, batches):
    yield operation_pb2.FeedRequest(feed_id=feed_id)
    sent = 0
    for batch in batches:
        for name, array in batch.items():
            yield operation_pb2.FeedRequest(chunk=chunk(name, array))
        end = operation_pb2.BatchEnd(returns=getattr(batch, "returns", None))
        yield operation_pb2.FeedRequest(batch_end=end)
        sent += 1
    yield operation_pb2.FeedRequest(feed_end=operation_pb2.FeedEnd(batches=sent))


class Valve:
    """Batches that a test lets through one at a time."""

    def __init__(self, batches):
        self._batches = iter(batches)
        self._open = threading.Semaphore(0)
        self.sent = 0

    def let(self, count=1):
        self._open.release(count)

    def __iter__(self):
        for batch in self._batches:
            self._open.acquire()
            self.sent += 1
            yield batch
