"""Paths of requests: what lies within the roots once symlinks and `..` are followed, and what does not."""

import json
import shutil

import grpc
import pytest
from client import Client, detail_of, reason_of, spawn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import work_pb2
from prunebridge_shim.rpc.roots import Roots


@pytest.fixture
def tree(tmp_path):
    """Two roots and a place outside, with symlinks in both directions."""
    for folder in ("a/model", "a/blobs", "b", "outside/model"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "a/blobs/weights").write_text("weights")
    (tmp_path / "a/out").symlink_to(tmp_path / "outside")
    (tmp_path / "a/dangling").symlink_to(tmp_path / "outside/not-there-yet")
    (tmp_path / "a/to_b").symlink_to("../b")
    (tmp_path / "outside/in").symlink_to(tmp_path / "a/model")
    (tmp_path / "ab").mkdir()
    (tmp_path / "model_root").symlink_to(tmp_path / "a")
    return tmp_path


def confine(roots, path):
    work = work_pb2.OpenModel(path=str(path))
    roots.confine("open_model", work)
    return work.path


def denied(roots, path):
    with pytest.raises(ShimError) as caught:
        confine(roots, path)
    assert caught.value.reason is Reason.PATH_DENIED
    return caught.value.message


def test_paths_within_are_resolved(tree):
    roots = Roots([tree / "a", tree / "b"])
    for given, resolved in (
        ("a/model", "a/model"),
        ("a/../b", "b"),
        ("a/to_b", "b"),
        ("a/model/../to_b/not/there", "b/not/there"),
        ("outside/in", "a/model"),
        ("a/not/there/../yet", "a/not/yet"),
    ):
        assert confine(roots, f"{tree}/{given}") == str(tree / resolved)


@pytest.mark.parametrize(
    "given",
    [
        "outside",
        "a/../outside",
        "a/out",
        "a/out/model",
        "a/dangling",
        "a/model/../../outside/x",
        "ab",
        "a/..",
        ".",
        "/",
    ],
)
def test_paths_that_lead_out_are_denied(tree, given):
    message = denied(Roots([tree / "a", tree / "b"]), given if given == "/" else f"{tree}/{given}")
    assert f"{tree}/a or {tree}/b" in message
    assert given.strip("./") in message


@pytest.mark.parametrize("field", ["checkpoint_dir", "pruned_dir", "weights_path"])
def test_each_source_of_a_network_is_confined(tree, field):
    def confined(path):
        work = work_pb2.OpenNetwork()
        setattr(work.built if field == "weights_path" else work, field, str(path))
        Roots([tree / "a"]).confine("open_network", work)
        return getattr(work.built if field == "weights_path" else work, field)

    (tree / "a/model/linked").symlink_to(tree / "outside/secret")
    assert confined(tree / "a/to_b/../a/blobs/weights") == str(tree / "a/blobs/weights")
    for path in ("outside/model", "a/model/linked", "a/out/model"):
        with pytest.raises(ShimError, match="does not lie within"):
            confined(tree / path)


def test_a_network_may_come_without_weights(tree):
    work = work_pb2.OpenNetwork(built=work_pb2.BuiltNetwork(entrypoint="a:b"))
    Roots([tree / "a"]).confine("open_network", work)
    assert work == work_pb2.OpenNetwork(built=work_pb2.BuiltNetwork(entrypoint="a:b"))


def test_where_a_network_is_saved_is_confined(tree):
    work = work_pb2.SaveNetwork(job_dir=str(tree / "a/out/job"))
    with pytest.raises(ShimError, match="does not lie within"):
        Roots([tree / "a"]).confine("save_network", work)


def test_a_root_may_be_a_symlink(tree):
    roots = Roots([tree / "model_root"])
    assert confine(roots, tree / "model_root/model") == str(tree / "a/model")
    denied(roots, tree / "model_root/out")


def test_a_root_has_to_be_there(tree):
    with pytest.raises(ShimError, match="is no folder") as caught:
        Roots([tree / "a", tree / "c"])
    assert caught.value.reason is Reason.PATH_NOT_FOUND


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused(tree, path):
    with pytest.raises(ShimError, match="is no path") as caught:
        confine(Roots([tree]), path)
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_without_roots_paths_are_left_as_they_are(tree):
    assert confine(Roots(), tree / "a/out/../out") == str(tree / "a/out/../out")


def test_files_of_a_folder_are_followed(tree):
    roots = Roots([tree / "a"])
    model = tree / "a/model"
    (model / "model.safetensors").symlink_to("../blobs/weights")
    confine(roots, model)
    (model / "tokenizer.json").symlink_to(tree / "outside/secret")
    assert "tokenizer.json" in denied(roots, model)


@pytest.mark.parametrize("name", ["../../outside/secret", "/etc/passwd", "../out/secret"])
def test_files_that_an_index_names_are_followed(tree, name):
    model = tree / "a/model"
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "inside.safetensors", "y": name}}))
    denied(Roots([tree / "a"]), model)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"weight_map": []}', '{"weight_map": null}'])
def test_an_index_that_is_none_is_left_to_its_loader(tree, text):
    model = tree / "a/model"
    (model / "model.safetensors.index.json").write_text(text)
    confine(Roots([tree / "a"]), model)


def test_files_that_a_slice_reads_are_followed(tree):
    roots = Roots([tree / "a"])
    (tree / "a/model/linked").symlink_to(tree / "outside/secret")

    def cut(file, job="job"):
        tensors = [work_pb2.TensorSlice(name="x", parts=[work_pb2.TensorPart(source_file=file)])]
        shards = [work_pb2.OutputShard(file="out", tensors=tensors)]
        work = work_pb2.Slice(source_dir=str(tree / "a/blobs"), job_dir=str(tree / "a" / job), shards=shards)
        roots.confine("slice", work)
        return work

    assert cut("weights").job_dir == str(tree / "a/job")
    for file in ("../model/linked", "../../outside/secret"):
        with pytest.raises(ShimError, match="does not lie within"):
            cut(file)
    with pytest.raises(ShimError, match="does not lie within"):
        cut("weights", job="out/job")
    (tree / "a/job/child").mkdir(parents=True)
    assert cut("weights").job_dir == str(tree / "a/job")
    (tree / "a/job/child/shard").symlink_to(tree / "outside/secret")
    with pytest.raises(ShimError, match="job/child/shard does not lie within"):
        cut("weights")
    (tree / "a/job/child/shard").unlink()
    (tree / "a/job/child/iter_0000001").mkdir()
    (tree / "a/job/child/iter_0000001/shard").symlink_to(tree / "outside/secret")
    save = work_pb2.TorchDistSave(folder="iter_0000001")
    work = work_pb2.Slice(source_dir=str(tree / "a/blobs"), job_dir=str(tree / "a/job"), torch_dist=save)
    with pytest.raises(ShimError, match="iter_0000001/shard does not lie within"):
        roots.confine("slice", work)
    shutil.rmtree(tree / "a/job/child/iter_0000001")
    (tree / "a/job/child").rmdir()
    (tree / "a/job/child").symlink_to(tree / "outside")
    with pytest.raises(ShimError, match="job/child does not lie within"):
        cut("weights")


def test_a_shim_denies_before_it_starts_anything(tree, socket_folder, checkpoints):
    process, ready = spawn(socket_folder, roots=[tree / "a"])
    try:
        client = Client(ready["address"])
        outside = str(checkpoints("llama"))
        for work in (
            {"open_model": work_pb2.OpenModel(path=outside, device="cpu", dtype="auto")},
            {"tokenize": work_pb2.Tokenize(path=outside, feed_id="f")},
            {"slice": work_pb2.Slice(source_dir=str(tree / "a"), job_dir=outside, feed_id="g")},
        ):
            with pytest.raises(grpc.RpcError) as caught:
                client.start(**work)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert reason_of(detail_of(caught.value)) == "PATH_DENIED"
    finally:
        process.kill()
        process.communicate()


def test_a_folder_that_becomes_a_symlink_while_work_waits_is_denied(tree, socket_folder):
    process, ready = spawn(socket_folder, roots=[tree / "a"])
    try:
        client = Client(ready["address"])
        ahead = work_pb2.Slice(source_dir=str(tree / "a/blobs"), job_dir=str(tree / "a/ahead"), feed_id="never")
        waited_for = client.start(slice=ahead)
        behind = work_pb2.Slice(source_dir=str(tree / "a/model"), job_dir=str(tree / "a/job"), feed_id="later")
        operation = client.start(slice=behind)
        (tree / "a/model").rmdir()
        (tree / "a/model").symlink_to(tree / "outside/model")
        client.cancel(waited_for)
        assert reason_of(client.watch(operation)[-1].failed) == "PATH_DENIED"
    finally:
        process.kill()
        process.communicate()


def test_a_root_is_no_jobs_folder(tree):
    work = work_pb2.Slice(source_dir=str(tree / "a/model"), job_dir=str(tree / "b"))
    with pytest.raises(ShimError, match="does not lie within") as caught:
        Roots([tree / "a", tree / "b"]).confine("slice", work)
    assert caught.value.reason is Reason.PATH_DENIED
