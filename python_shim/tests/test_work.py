"""Each kind of work once over the wire; what it computes is tested where it is computed."""

import json

import numpy as np
import pytest
import torch
from children import random_slices, smaller_config
from client import reason_of
from safetensors.numpy import load_file, save_file
from test_subnet import SETS, config_of, slices_of
from tiny import token_ids

from prunebridge_shim.gen.prunebridge.v1 import tensor_pb2, work_pb2
from prunebridge_shim.models.checkpoint import load_model
from prunebridge_shim.models.store import count_parameters
from prunebridge_shim.subnet.child import build_child


def wire_slice(tensor):
    return work_pb2.TensorSlice(name=tensor.name, parts=map(wire_part, tensor.parts))


def wire_part(part):
    source = tensor_pb2.TensorInfo(name=part.source_name, dtype=f"DTYPE_{part.dtype}", shape=part.shape)
    blocks = [work_pb2.BlockAxes(axes=axes) for axes in part.blocks]
    return work_pb2.TensorPart(source_file=part.source_file, source=source, axes=part.axes, blocks=blocks)


def open_model(shim, folder):
    last, _ = shim.run(open_model=work_pb2.OpenModel(path=str(folder), device="auto", dtype="auto"))
    return last.succeeded.model_opened


def hook(key, module, reduction, side="HOOK_SIDE_UNSPECIFIED"):
    return work_pb2.HookPoint(key=key, module=module, reduction=f"REDUCTION_{reduction}", side=side)


def test_open_and_close(shim, checkpoints):
    opened = open_model(shim, checkpoints("qwen2"))
    assert opened.dtype == "bfloat16"
    assert opened.parameters == sum(t.size for t in stored_items(checkpoints("qwen2")))
    shim.run(close_model=work_pb2.CloseModel(model_id=opened.model_id))
    assert shim.fail(close_model=work_pb2.CloseModel(model_id=opened.model_id))[0] == "UNKNOWN_MODEL"


def stored_items(folder):
    from safetensors.torch import load_file as load_torch

    return [tensor.float().numpy() for tensor in load_torch(folder / "model.safetensors").values()]


def test_collect(shim, checkpoints, rng):
    model_id = open_model(shim, checkpoints("llama")).model_id
    hooks = [
        hook("ffn", "model.layers.0.mlp.down_proj", "MEAN_ABS_SQUARE", "HOOK_SIDE_INPUT"),
        hook("norm", "model.layers.0.input_layernorm", "MEAN_ABS_SQUARE", "HOOK_SIDE_OUTPUT"),
        hook("layer", "model.layers.0", "COSINE_DISTANCE"),
    ]
    batches = [{"input_ids": ids} for ids in token_ids(rng)]
    last, tensors = shim.run(batches, collect=work_pb2.Collect(model_id=model_id, hooks=hooks))
    done = last.succeeded.collected
    assert (done.batches, done.samples, done.tokens) == (3, 6, 54)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"ffn": (48,), "norm": (32,), "layer": ()}


@pytest.mark.parametrize(
    ("reduction", "side"),
    [
        ("UNSPECIFIED", "HOOK_SIDE_INPUT"),
        ("MEAN_ABS_SQUARE", "HOOK_SIDE_UNSPECIFIED"),
        ("COSINE_DISTANCE", "HOOK_SIDE_INPUT"),
        ("ROUTED_TOKENS", "HOOK_SIDE_OUTPUT"),
    ],
)
def test_a_hook_that_contradicts_itself(shim, checkpoints, reduction, side):
    model_id = open_model(shim, checkpoints("llama")).model_id
    work = work_pb2.Collect(model_id=model_id, hooks=[hook("k", "model.norm", reduction, side)])
    assert shim.fail([], collect=work)[0] == "INVALID_REQUEST"


def test_cut(shim, checkpoints, rng):
    folder = checkpoints("llama")
    model_id = open_model(shim, folder).model_id
    tensors = [wire_slice(tensor) for tensor in slices_of(folder)]
    work = work_pb2.CutModel(model_id=model_id, tensors=tensors, config_json=config_of(folder))
    reason, message = shim.fail([{"h": np.array([0, 99]), "f": SETS["f"]}], cut_model=work)
    assert (reason, "keeps position 99" in message) == ("BAD_TENSOR", True)
    fetching = json.dumps({**json.loads(work.config_json), "attn_implementation": "kernels-community/flash-attn"})
    told = work_pb2.CutModel(model_id=model_id, tensors=tensors, config_json=fetching)
    reason, message = shim.fail([SETS], cut_model=told)
    assert (reason, "attn_implementation" in message) == ("INVALID_REQUEST", True)
    last, _ = shim.run([SETS], cut_model=work)
    assert last.succeeded.model_cut.parameters < 10_000
    batches = [{"input_ids": ids} for ids in token_ids(rng)]
    last, _ = shim.run(batches, evaluate_loss=work_pb2.EvaluateLoss(model_id=model_id))
    assert last.succeeded.loss_evaluated.tokens == 48


def test_a_view_of_a_model_with_experts(shim, checkpoints, rng):
    folder = checkpoints("gpt_oss")
    model_id = open_model(shim, folder).model_id
    parent = load_model(str(folder), torch.device("cpu"), "auto")
    config = smaller_config(parent)
    slices, sets = random_slices(parent, config, rng)
    cut = {"model_id": model_id, "tensors": [wire_slice(one) for one in slices], "config_json": config}
    units = ["model.layers.0", "model.layers.1", "lm_head"]
    last, _ = shim.run([sets], open_subnet=work_pb2.OpenSubnet(**cut, units=units))
    view = last.succeeded.subnet_opened
    assert view.parameters == count_parameters(build_child(parent, config))

    experts = "model.layers.0.mlp.experts"
    hooks = [hook(kind, experts, f"ROUTED_{kind}") for kind in ("MEAN_ABS_SQUARE", "OUTPUT_NORM", "TOKENS")]
    batches = [{"input_ids": ids} for ids in token_ids(rng)]
    _, tensors = shim.run(batches, collect=work_pb2.Collect(model_id=view.model_id, hooks=hooks))
    shapes = {"MEAN_ABS_SQUARE": (4, 40), "OUTPUT_NORM": (4,), "TOKENS": (4,)}
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes
    assert tensors["TOKENS"].sum() == 54 * 2

    viewed, _ = shim.run(batches, evaluate_loss=work_pb2.EvaluateLoss(model_id=view.model_id))
    reason, message = shim.fail([sets], cut_model=work_pb2.CutModel(**cut))
    assert (reason, f"has open views: {view.model_id}" in message) == ("INVALID_REQUEST", True)
    shim.run(close_model=work_pb2.CloseModel(model_id=view.model_id))
    shim.run([sets], cut_model=work_pb2.CutModel(**cut))
    child, _ = shim.run(batches, evaluate_loss=work_pb2.EvaluateLoss(model_id=model_id))
    assert child.succeeded.loss_evaluated == viewed.succeeded.loss_evaluated


@pytest.fixture
def slice_work(tmp_path, rng):
    source = tmp_path / "source"
    source.mkdir()
    save_file({"w": rng.standard_normal((8, 6)).astype(np.float32)}, source / "a.safetensors")
    info = tensor_pb2.TensorInfo(name="w", dtype="DTYPE_F32", shape=(8, 6))
    part = work_pb2.TensorPart(source_file="a.safetensors", source=info, axes=["k", ""])
    tensor = work_pb2.TensorSlice(name="w", parts=[part])
    shard = work_pb2.OutputShard(file="b.safetensors", metadata={"format": "pt"}, tensors=[tensor])
    return work_pb2.Slice(source_dir=str(source), job_dir=str(tmp_path / "job"), shards=[shard])


def test_slice(shim, slice_work, tmp_path):
    kept = np.array([1, 2, 7])
    last, _ = shim.run([{"k": kept}], slice=slice_work)
    (shard,) = last.succeeded.sliced.shards
    child = tmp_path / "job" / "child" / "b.safetensors"
    assert (shard.file, shard.bytes) == ("b.safetensors", child.stat().st_size)
    assert np.array_equal(load_file(child)["w"], load_file(tmp_path / "source" / "a.safetensors")["w"][kept])


@pytest.mark.parametrize("batches", [[], [{"k": np.array([0])}, {}]])
def test_index_sets_come_in_one_batch(shim, slice_work, batches):
    assert shim.fail(batches, slice=slice_work)[0] == "INVALID_REQUEST"


def test_storage_work_goes_on_beside_models(shim, checkpoints, slice_work):
    model_id = open_model(shim, checkpoints("llama")).model_id
    waiting = shim.start(evaluate_loss=work_pb2.EvaluateLoss(model_id=model_id, feed_id="waits"))
    last, _ = shim.run([{"k": np.array([0])}], slice=slice_work)
    assert last.HasField("succeeded")
    shim.cancel(waiting)
    assert reason_of(shim.watch(waiting)[-1].failed) == "CANCELLED"


def test_tokenize_a_folder_without_a_tokenizer(shim, checkpoints):
    batches = [{"text": np.frombuffer(b"hi", np.uint8)}]
    assert shim.fail(batches, tokenize=work_pb2.Tokenize(path=str(checkpoints("llama"))))[0] == "BAD_CHECKPOINT"
