"""A job with a guest, over gRPC: what a client is told, what it measures, and what it is refused."""

import json
import threading
import zlib
from contextlib import closing, contextmanager

import grpc
import numpy as np
import pytest
from client import Client, FeedCall, Valve, detail_of, feed_messages, reason_of
from golden import GOLDEN, case_of
from launch import end_jobs, start_jobs, wait_for
from listeners import Authority, channel_credentials, write_token
from orchestrators import Orchestrator
from points import points_of
from safetensors.numpy import load_file
from sliced_children import PARENT, child_of
from test_layouts import as_golden

from prunebridge_shim.gen.prunebridge.v1 import session_pb2, work_pb2
from prunebridge_shim.rpc.health import Request, Response
from prunebridge_shim.slicing.request import SliceJob
from prunebridge_shim.slicing.run import slice_shards

TOKEN, READ_TOKEN = "may-do-all-with-the-job", "may-measure-the-job"
SP = {"sequence_parallel": True}
SERVED = {
    "two": (2, {"parent": "llama-gqa", "tp": 2, "how": "serve"}),
    "four": (4, {"parent": "llama-gqa", "tp": 2, "pp": 2, "config": SP, "how": "serve"}),
    "experts": (2, {"parent": "mixtral-small", "ep": 2, "how": "serve"}),
}
LAYOUTS = {
    "two": {"world_size": 2, "tensor": 2, "pipeline": 1, "data": 1, "context": 1, "expert": 1},
    "four": {"world_size": 4, "tensor": 2, "pipeline": 2, "data": 1, "context": 1, "expert": 1},
    "experts": {"world_size": 2, "tensor": 1, "pipeline": 1, "data": 2, "context": 1, "expert": 2},
}


def jobs_of(table):
    return {name: (ranks, [{"id": name, **case}]) for name, (ranks, case) in table.items()}


class Jobs:
    """Jobs that run while a test speaks to them."""

    def __init__(self, folder, table, scenario="host"):
        write_token(folder / "token", TOKEN)
        write_token(folder / "read-token", READ_TOKEN)
        self.folder = folder
        self._names = list(table)
        self._process = start_jobs(scenario, folder, jobs_of(table))

    def ready(self, name):
        return json.loads(wait_for(self.folder / f"{name}.ready", self._process))

    def client(self, name, token=TOKEN, credentials=None):
        return Client(self.ready(name)["address"], token, credentials)

    def end(self):
        for name in self._names:
            (self.folder / f"{name}.stop").touch()
        return end_jobs(self._process, self.folder)


@contextmanager
def running(folder, table, scenario="host"):
    jobs = Jobs(folder, table, scenario)
    try:
        yield jobs
    finally:
        jobs.outcome = jobs.end()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def orchestrator():
    with closing(Orchestrator(TOKEN)) as made:
        yield made


@pytest.fixture(scope="module")
def served(tmp_path_factory, authority, orchestrator):
    folder = tmp_path_factory.mktemp("served")
    cert, key = authority.issue("server")
    files = {"tls_cert": str(cert), "tls_key": str(key), "read_token_file": str(folder / "read-token")}
    ranks, case = SERVED["two"]
    table = {
        **SERVED,
        "two": (ranks, {**case, "attach": {"address": "0.0.0.0:0", **files}}),
        "dialling": (2, {**case, "attach": {"address": None, "dial": f"127.0.0.1:{orchestrator.port}"}}),
    }
    with running(folder, table) as jobs:
        yield jobs
    exits, log = jobs.outcome
    assert exits == {name: [0] * ranks for name, (ranks, _) in table.items()}, log
    assert "a defect of the shim" not in log, log
    assert TOKEN not in log
    for name, (ranks, _) in table.items():
        for rank in range(ranks):
            assert json.loads((folder / f"{name}.{rank}.left").read_text()) == []


@pytest.fixture(scope="module")
def client_of(served, authority):
    """Clients of the jobs that are served, by name; one of them by TLS."""

    def connect(name, token=TOKEN):
        if name != "two":
            return served.client(name, token)
        port = served.ready(name)["address"].rsplit(":", 1)[1]
        return Client(f"localhost:{port}", token, channel_credentials(authority))

    return connect


def handshake(client):
    return client.session.Handshake(session_pb2.HandshakeRequest(protocol_min=1, protocol_max=1), timeout=60)


def health(client):
    check = client.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=Request.SerializeToString,
        response_deserializer=Response.FromString,
    )
    return check(Request(), timeout=20).status


def model_of(client):
    (model,) = handshake(client).attached
    return model


def batches_of(parent):
    return [{"input_ids": ids} for ids in load_file(GOLDEN / parent / "data.safetensors")["input_ids"]]


MEASURES = {
    "mean_abs_square_in": ("MEAN_ABS_SQUARE", "INPUT"),
    "mean_abs_square_out": ("MEAN_ABS_SQUARE", "OUTPUT"),
    "cosine_distance": ("COSINE_DISTANCE", "UNSPECIFIED"),
    "routed_mean_abs_square": ("ROUTED_MEAN_ABS_SQUARE", "UNSPECIFIED"),
    "routed_output_norm": ("ROUTED_OUTPUT_NORM", "UNSPECIFIED"),
    "routed_tokens": ("ROUTED_TOKENS", "UNSPECIFIED"),
}


def collect(client, parent, **fields):
    hooks = [
        work_pb2.HookPoint(
            key=point.key,
            module=point.module,
            reduction=f"REDUCTION_{MEASURES[point.measure][0]}",
            side=f"HOOK_SIDE_{MEASURES[point.measure][1]}",
        )
        for point in points_of(parent)
    ]
    return work_pb2.Collect(**{"model_id": model_of(client).model_id, "hooks": hooks, **fields})


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    detail = detail_of(caught.value)
    return reason_of(detail), detail


def check_scores(sums, parent):
    golden = load_file(GOLDEN / parent / "scores.safetensors")
    found = as_golden(sums)
    assert sorted(found) == sorted(golden)
    for key, value in golden.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", SERVED)
def test_what_a_job_says_of_itself(name, client_of):
    parent = SERVED[name][1]["parent"]
    told = handshake(client_of(name))
    assert {field.name: value for field, value in told.ranks.ListFields()} == LAYOUTS[name]
    assert sorted(told.capabilities) == ["close_model", "collect", "evaluate_loss", "save_model", "slice", "tokenize"]
    assert not told.devices
    (model,) = told.attached
    assert (model.device, model.dtype, model.may_be_cut) == ("cpu", "float32", False)
    weights = load_file(GOLDEN / parent / "parent.mcore.safetensors")
    assert model.parameters == sum(tensor.size for tensor in weights.values())
    case = case_of(parent)
    config = json.loads(model.config_json)
    same = {"num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels"}
    for key in {*same, "vocab_size", "num_moe_experts", "moe_ffn_hidden_size"} & {*case}:
        assert config[key] == case[key]
    assert config["architectures"] == ["GPTModel"]
    assert config["position_embedding_type"] == "rope"
    assert (config["max_position_embeddings"], config["padded_vocab_size"]) == (256, case["vocab_size"])
    assert not config["share_embeddings_and_output_weights"]
    assert (config["gated_linear_unit"], config["activation_func"]) == (True, "silu")


@pytest.mark.parametrize("name", SERVED)
def test_measures_are_the_golden_ones(name, client_of):
    parent = SERVED[name][1]["parent"]
    client = client_of(name)
    last, sums = client.run(batches_of(parent), collect=collect(client, parent))
    assert last.succeeded.collected.batches == len(batches_of(parent)), last
    check_scores(sums, parent)
    model_id = model_of(client).model_id
    again, _ = client.run(batches_of(parent), evaluate_loss=work_pb2.EvaluateLoss(model_id=model_id))
    assert 1 < again.succeeded.loss_evaluated.loss < 10
    closed, _ = client.run(close_model=work_pb2.CloseModel(model_id=model_id))
    assert closed.HasField("succeeded")
    assert model_of(client).model_id == model_id


def test_a_job_that_dials_out_is_measured_too(served, orchestrator):
    parent = "llama-gqa"
    _, address = orchestrator.take()
    client = Client(address, TOKEN)
    last, sums = client.run(batches_of(parent), collect=collect(client, parent))
    assert last.HasField("succeeded")
    check_scores(sums, parent)
    client.channel.close()
    assert refusal(lambda: handshake(Client(orchestrator.take()[1], READ_TOKEN)))[0] == "UNAUTHENTICATED"


def test_whoever_may_read_may_measure(client_of):
    client = client_of("two", READ_TOKEN)
    assert list(handshake(client).rights) == [session_pb2.RIGHT_READ]
    last, sums = client.run(batches_of("llama-gqa"), collect=collect(client, "llama-gqa"))
    assert last.HasField("succeeded")
    check_scores(sums, "llama-gqa")
    assert refusal(lambda: client.start(slice=work_pb2.Slice(source_dir="/", job_dir="/x", feed_id="f")))[0] == (
        "RIGHT_DENIED"
    )


def save(client, **fields):
    shards, sets = child_of(GOLDEN / "llama-gqa" / PARENT)
    wire = [
        work_pb2.OutputShard(
            file=shard.file,
            metadata=shard.metadata,
            tensors=[
                work_pb2.TensorSlice(
                    name=tensor.name,
                    parts=[
                        work_pb2.TensorPart(
                            source={"name": part.source_name, "dtype": f"DTYPE_{part.dtype}", "shape": part.shape},
                            axes=part.axes,
                        )
                        for part in tensor.parts
                    ],
                )
                for tensor in shard.tensors
            ],
        )
        for shard in shards
    ]
    return [sets], work_pb2.SaveModel(**{"model_id": model_of(client).model_id, "shards": wire, **fields})


def test_a_child_is_saved_from_the_live_weights(client_of, served, tmp_path):
    client, job = client_of("four"), served.folder / "saved"
    batches, work = save(client, job_dir=str(job), skip_flush=True)
    last, _ = client.run(batches, save_model=work)
    assert last.HasField("succeeded"), last
    shards, sets = child_of(GOLDEN / "llama-gqa" / PARENT)
    slice_shards(SliceJob(GOLDEN / "llama-gqa", tmp_path / "cut", shards, sets, flush=False), lambda *_: None)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "cut" / "child").iterdir()}
    assert {path.name: path.read_bytes() for path in (job / "child").iterdir()} == expected
    told = {one.file: (one.bytes, one.crc32) for one in last.succeeded.sliced.shards}
    assert told == {name: (len(data), zlib.crc32(data)) for name, data in expected.items()}


def test_a_child_is_saved_where_the_token_and_the_roots_allow(client_of, served, tmp_path):
    reader, client = client_of("two", READ_TOKEN), client_of("four")
    _, work = save(reader, job_dir=str(served.folder / "read"), feed_id="f")
    assert refusal(lambda: reader.start(save_model=work))[0] == "RIGHT_DENIED"
    for outside in (tmp_path, served.folder):
        _, work = save(client, job_dir=str(outside), feed_id="f")
        assert refusal(lambda work=work: client.start(save_model=work))[0] == "PATH_DENIED"


def test_strangers_are_not_let_in(client_of):
    assert refusal(lambda: handshake(client_of("two", "some-other-token")))[0] == "UNAUTHENTICATED"
    assert refusal(lambda: handshake(client_of("four", READ_TOKEN)))[0] == "UNAUTHENTICATED"


def test_what_a_guest_does_not_do_is_refused_at_once(client_of):
    client = client_of("four")
    model_id = model_of(client).model_id
    data = work_pb2.PythonData(data_loader="os:getcwd")
    refused = {
        "open_model": (work_pb2.OpenModel(path="/x"), "INVALID_REQUEST"),
        "open_subnet": (work_pb2.OpenSubnet(model_id=model_id, feed_id="f"), "INVALID_REQUEST"),
        "forward": (work_pb2.Forward(model_id=model_id, feed_id="f"), "INVALID_REQUEST"),
        "cut_model": (work_pb2.CutModel(model_id=model_id, feed_id="f"), "INVALID_REQUEST"),
        "score_model": (work_pb2.ScoreModel(model_id=model_id, score_func="os:getcwd"), "INVALID_REQUEST"),
        "collect": (work_pb2.Collect(model_id=model_id, data=data), "PYTHON_DENIED"),
        "evaluate_loss": (work_pb2.EvaluateLoss(model_id="model-1", feed_id="f"), "UNKNOWN_MODEL"),
        "tokenize": (work_pb2.Tokenize(path="/etc", feed_id="f"), "PATH_DENIED"),
    }
    for kind, (work, reason) in refused.items():
        found, detail = refusal(lambda kind=kind, work=work: client.start(**{kind: work}))
        assert found == reason, kind
        assert detail.hint


def test_clients_that_go_leave_the_job_as_it_is(client_of):
    client, parent = client_of("four"), "llama-gqa"
    cancelled = client.start(collect=collect(client, parent, feed_id="cancelled"))
    valve = Valve(batches_of(parent) * 3)
    feed = FeedCall(client.feeds.Feed(feed_messages("cancelled", valve), timeout=60))
    valve.let(2)
    client.cancel(cancelled)
    assert reason_of(client.watch(cancelled)[-1].failed) == "CANCELLED"
    gone = client.start(collect=collect(client, parent, feed_id="gone"))
    broken = Valve(batches_of(parent))
    call = client.feeds.Feed(feed_messages("gone", broken), timeout=60)
    threading.Timer(0.5, call.cancel).start()
    broken.let(2)
    assert reason_of(client.watch(gone)[-1].failed) == "FEED_LOST"
    valve.let(100)
    broken.let(100)
    with pytest.raises(grpc.RpcError):
        feed.result(20)
    assert client.fail([{"input_ids": np.full((1, 8), 9999)}], collect=collect(client, parent))[0] == "BAD_DATA"
    last, sums = client.run(batches_of(parent), collect=collect(client, parent))
    assert last.HasField("succeeded")
    check_scores(sums, parent)
