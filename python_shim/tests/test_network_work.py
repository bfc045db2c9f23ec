"""Networks of any kind over the wire: opened, run and traced."""

import json
import re

import numpy as np
import pytest
import torch
import user_networks
from client import Asking
from networks import NETWORKS
from safetensors.torch import save_file
from tiny import no_tick
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from user_networks import build
from wire_slices import Plan, size

from prunebridge_shim.gen.prunebridge.v1 import work_pb2
from prunebridge_shim.models.outputs import floating_tensors
from prunebridge_shim.networks.cut import cut
from prunebridge_shim.networks.trace import trace
from prunebridge_shim.networks.trial import zero

IMAGES = np.random.default_rng(5).standard_normal((2, 3, 15, 15)).astype(np.float32)


def open_network(shim, **source):
    last, _ = shim.run(open_network=opening(**source))
    assert last.HasField("succeeded"), last.failed
    return last.succeeded.model_opened


def opening(dtype="auto", **source):
    return work_pb2.OpenNetwork(device="cpu", dtype=dtype, **source)


def built(kind="Residual", weights="", entrypoint="user_networks:build", **kwargs):
    kwargs = kwargs or {"kind": kind}
    return work_pb2.BuiltNetwork(entrypoint=entrypoint, kwargs_json=json.dumps(kwargs), weights_path=str(weights))


def run(shim, model_id, *images, **named):
    """What a network gives for one batch."""
    batch = Asking("OUTPUT", **{str(at): one for at, one in enumerate(images)}, **named)
    feed_id = f"feed-{model_id}-{np.random.default_rng().integers(1 << 60)}"
    operation = shim.start(forward=work_pb2.Forward(model_id=model_id, feed_id=feed_id))
    call = shim.feed_in_background(feed_id, [batch])
    last = shim.watch(operation)[-1]
    assert last.HasField("succeeded"), last.failed
    call.result(20)
    return call.answers[0]


def test_a_network_that_a_function_builds(shim):
    opened = open_network(shim, built=built("Residual"))
    assert (opened.device, opened.dtype) == ("cpu", "float32")
    network = build("Residual")
    assert opened.parameters == sum(one.numel() for one in network.parameters())
    expected = network(torch.from_numpy(IMAGES)).detach().numpy()
    np.testing.assert_allclose(run(shim, opened.model_id, IMAGES)["output"], expected, rtol=1e-5)
    np.testing.assert_allclose(run(shim, opened.model_id, x=IMAGES)["output"], expected, rtol=1e-5)


def test_weights_of_a_file_are_put_into_it(shim, tmp_path):
    network = build("Depthwise", seed=9)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    model_id = open_network(shim, built=built("Depthwise", tmp_path / "w.safetensors")).model_id
    expected = network(torch.from_numpy(IMAGES)).detach().numpy()
    np.testing.assert_allclose(run(shim, model_id, IMAGES)["output"], expected, rtol=1e-5)


def test_weights_are_kept_as_they_are_stored_or_cast(shim, tmp_path):
    save_file(build("Residual").bfloat16().state_dict(), tmp_path / "w.safetensors")
    assert open_network(shim, built=built("Residual", tmp_path / "w.safetensors")).dtype == "bfloat16"
    assert open_network(shim, built=built("Residual", tmp_path / "w.safetensors"), dtype="float32").dtype == "float32"


def test_tied_tensors_may_be_stored_once(shim, tmp_path):
    network = user_networks.tied()
    state = network.state_dict()
    del state["2.weight"]
    save_file(state, tmp_path / "w.safetensors")
    entry = work_pb2.BuiltNetwork(entrypoint="user_networks:tied", weights_path=str(tmp_path / "w.safetensors"))
    opened = open_network(shim, built=entry)
    assert opened.parameters == 6 * 6 + 2 * 6
    x = IMAGES[0, 0, :5, :6]
    np.testing.assert_allclose(
        run(shim, opened.model_id, x)["output"], network(torch.from_numpy(x)).detach(), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("head.bias"), "lacks head.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "has no place for extra"),
        (lambda state: state.update({"head.bias": torch.zeros(4)}), r"has head.bias as \[4\] and the network as \[5\]"),
        (lambda state: state.update({"head.bias": torch.zeros(5, dtype=torch.int64)}), "has head.bias in torch.int64"),
    ],
)
def test_weights_that_do_not_fit(shim, tmp_path, change, message):
    state = build("Residual").state_dict()
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    reason, told = shim.fail(open_network=opening(built=built("Residual", tmp_path / "w.safetensors")))
    assert reason == "BAD_CHECKPOINT"
    assert re.search(message, told), told


def test_what_is_no_safetensors_file_is_never_unpickled(shim, tmp_path):
    torch.save(build("Residual").state_dict(), tmp_path / "w.pt")
    reason, told = shim.fail(open_network=opening(built=built("Residual", tmp_path / "w.pt")))
    assert (reason, "is no safetensors file" in told) == ("BAD_CHECKPOINT", True)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"entrypoint": "os:getcwd"}, "PYTHON_DENIED"),
        ({"entrypoint": "user_networks:no_module"}, "PYTHON_FAILED"),
        ({"entrypoint": "user_networks:on_meta"}, "PYTHON_FAILED"),
        ({"entrypoint": "user_networks:build", "kwargs_json": '{"kind": "Absent"}'}, "PYTHON_FAILED"),
        ({"entrypoint": "user_networks:build", "kwargs_json": "[]"}, "INVALID_REQUEST"),
        ({"entrypoint": "user_networks:tied", "weights_path": "/nowhere.safetensors"}, "PATH_NOT_FOUND"),
    ],
)
def test_what_cannot_be_opened(shim, entry, reason):
    assert shim.fail(open_network=opening(built=work_pb2.BuiltNetwork(**entry)))[0] == reason


def test_a_source_is_needed(shim):
    assert shim.fail(open_network=opening())[0] == "INVALID_REQUEST"


def test_several_tensors_come_back_under_their_names(shim):
    model_id = open_network(shim, built=built("Upsampling")).model_id
    given = run(shim, model_id, IMAGES)
    assert {name: tensor.shape for name, tensor in given.items()} == {"features": (2, 6, 16, 16), "scores": (2, 5)}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"0": IMAGES, "2": IMAGES}, "positions 0, 2 of forward's arguments, and no 1"),
        ({"y": IMAGES}, "is not what the network's forward takes"),
        ({"0": IMAGES[:, :2]}, "cannot run batch 0, 0 float32 [2, 2, 15, 15]"),
    ],
)
def test_batches_that_do_not_fit(shim, batch, message):
    model_id = open_network(shim, built=built("Residual")).model_id
    reason, told = shim.fail([batch], forward=work_pb2.Forward(model_id=model_id))
    assert reason == "BAD_DATA"
    assert message in told


def test_a_network_has_no_logits(shim):
    model_id = open_network(shim, built=built("Residual")).model_id
    reason, told = shim.fail([Asking("LOGITS", **{"0": IMAGES})], forward=work_pb2.Forward(model_id=model_id))
    assert (reason, "asks for logits" in told) == ("INVALID_REQUEST", True)
    loss = work_pb2.EvaluateLoss(model_id=model_id)
    assert shim.fail([{"input_ids": np.zeros((1, 2), np.int64)}], evaluate_loss=loss)[0] == "INVALID_REQUEST"


def test_facts_come_over_the_wire(shim):
    model_id = open_network(shim, built=built("Grouped")).model_id
    last, tensors = shim.run([{"0": IMAGES}], trace_network=work_pb2.TraceNetwork(model_id=model_id))
    traced = last.succeeded.network_traced
    assert [([one.module for one in group.outputs], group.channels, group.sections) for group in traced.groups] == [
        (["first"], 12, 4),
        (["grouped"], 16, 4),
        (["head"], 5, 1),
    ]
    assert [group.fixed for group in traced.groups] == [False, False, True]
    assert (traced.groups[1].outputs[0].kind, traced.groups[1].outputs[0].attribute) == ("nn.Conv2d", "out_channels")
    weight = next(one for one in traced.tensors if one.info.name == "grouped.weight")
    assert (list(weight.info.shape), weight.blocks) == ([16, 3, 3, 3], 4)
    layer = next(one for one in traced.layers if one.module == "grouped")
    assert {name: axis.parts[0].group for name, axis in layer.attributes.items()} == {
        "in_channels": 0,
        "out_channels": 1,
    }
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "importance.0": (12,),
        "importance.1": (16,),
        "importance.2": (5,),
    }


def traced(shim, model_id, *images):
    batch = {str(at): one for at, one in enumerate(images)}
    last, tensors = shim.run([batch], trace_network=work_pb2.TraceNetwork(model_id=model_id))
    assert last.HasField("succeeded"), last.failed
    return last.succeeded.network_traced, tensors


def halved(traced, tensors):
    """The more important half of each group's channels, at least one of each section."""
    kept = []
    for number, group in enumerate(traced.groups):
        if group.fixed:
            kept.append(range(group.channels))
            continue
        by_section = tensors[f"importance.{number}"].reshape(group.sections, -1)
        order = np.argsort(-by_section, axis=1, kind="stable")[:, : max(1, by_section.shape[1] // 2)]
        kept.append(np.sort((np.arange(group.sections)[:, None] * by_section.shape[1] + order).flatten()).tolist())
    return kept


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_view_computes_the_network_with_channels_of_zero(shim, kind):
    """And the flops of its facts are those that torch counts, and the parent stays as it is."""
    network = build(kind.__name__)
    images = torch.from_numpy(IMAGES)
    model_id = open_network(shim, built=built(kind.__name__)).model_id
    before = run(shim, model_id, IMAGES)
    found, tensors = traced(shim, model_id, IMAGES)
    kept = halved(found, tensors)
    plan = Plan(found, kept)
    opening = work_pb2.OpenSubnet(model_id=model_id, tensors=plan.tensors, modules=plan.modules)
    last, _ = shim.run([plan.sets], open_subnet=opening)
    assert last.HasField("succeeded"), last.failed
    view = last.succeeded.subnet_opened
    facts = trace(network, (images,), {}, no_tick)
    for name, expected in floating_tensors(zero(network, facts, kept)(images)).items():
        np.testing.assert_allclose(run(shim, view.model_id, IMAGES)[name], expected.array, rtol=1e-4, atol=1e-5)
    for name, expected in before.items():
        np.testing.assert_array_equal(run(shim, model_id, IMAGES)[name], expected)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        cut(network, facts, kept)(images)
    flops = sum(2 * one.factor * np.prod([size(axis, kept) for axis in one.axes]) for one in found.operations)
    assert flops == pytest.approx(counter.get_total_flops())
    parameters = [one for one in found.tensors if not one.is_buffer]
    assert view.parameters == sum(np.prod([size(axis, kept) for axis in one.axes]) / one.blocks for one in parameters)


def test_a_network_is_scored_and_cut_where_it_stands(shim):
    model_id = open_network(shim, built=built("Concatenating")).model_id
    found, tensors = traced(shim, model_id, IMAGES)
    plan = Plan(found, halved(found, tensors))
    work = work_pb2.OpenSubnet(model_id=model_id, tensors=plan.tensors, modules=plan.modules)
    view_id = shim.run([plan.sets], open_subnet=work)[0].succeeded.subnet_opened.model_id
    scores = [scored(shim, one) for one in (model_id, view_id)]
    assert scores[0] != scores[1]
    cut_work = work_pb2.CutModel(model_id=model_id, tensors=plan.tensors, modules=plan.modules)
    assert shim.fail([plan.sets], cut_model=cut_work)[0] == "INVALID_REQUEST"  # its view is open
    shim.run(close_model=work_pb2.CloseModel(model_id=view_id))
    last, _ = shim.run([plan.sets], cut_model=cut_work)
    assert last.succeeded.model_cut.parameters < sum(one.numel() for one in build("Concatenating").parameters())
    assert scored(shim, model_id) == pytest.approx(scores[1])


def scored(shim, model_id):
    last, _ = shim.run(score_model=work_pb2.ScoreModel(model_id=model_id, score_func="user_networks:planted"))
    assert last.HasField("succeeded"), last.failed
    return last.succeeded.model_scored.score


def out_of_range(plan):
    plan.sets = {name: found + 100 for name, found in plan.sets.items()}


def another_size(plan):
    next(one for one in plan.modules if one.module == "both").attributes["out_channels"] = 3


def no_attribute(plan):
    plan.modules[0].attributes["channels"] = 3


def no_size(plan):
    plan.modules[0].attributes["out_channels"] = 0


def no_module(plan):
    plan.modules[0].module = "absent"


def another_shape(plan):
    plan.tensors[0].parts[0].source.shape[0] = 7


def a_tensor_less(plan):
    del plan.tensors[0]


def twice(plan):
    plan.modules.append(plan.modules[0])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (out_of_range, "BAD_TENSOR"),
        (another_size, "BAD_TENSOR"),
        (no_attribute, "BAD_TENSOR"),
        (no_size, "BAD_TENSOR"),
        (no_module, "UNKNOWN_MODULE"),
        (another_shape, "BAD_TENSOR"),
        (a_tensor_less, "INVALID_REQUEST"),
        (twice, "INVALID_REQUEST"),
    ],
)
def test_a_child_that_does_not_fit_changes_nothing(shim, spoil, reason):
    model_id = open_network(shim, built=built("Concatenating")).model_id
    before = run(shim, model_id, IMAGES)["output"]
    found, tensors = traced(shim, model_id, IMAGES)
    plan = Plan(found, halved(found, tensors))
    spoil(plan)
    for kind, work in (("open_subnet", work_pb2.OpenSubnet), ("cut_model", work_pb2.CutModel)):
        request = work(model_id=model_id, tensors=plan.tensors, modules=plan.modules)
        assert shim.fail([plan.sets], **{kind: request})[0] == reason
    np.testing.assert_array_equal(run(shim, model_id, IMAGES)["output"], before)


@pytest.mark.parametrize("source", ["feed", "data", "loop"])
def test_norms_are_calibrated_by_a_feed_or_by_python(shim, tmp_path, source):
    model_id = open_network(shim, built=built("Depthwise")).model_id
    work = work_pb2.CalibrateNorms(model_id=model_id)
    batches = None
    if source == "feed":
        batches = [{"0": one.numpy()} for one in user_networks.images()]
    elif source == "data":
        work.data.data_loader = "user_networks:images"
    else:
        work.forward_loop = "user_networks:run_images"
    last, _ = shim.run(batches, calibrate_norms=work)
    assert last.HasField("succeeded"), last.failed
    assert (last.succeeded.norms_calibrated.batches, last.succeeded.norms_calibrated.layers) == (3, 1)
    network = build("Depthwise")
    network.norm.reset_running_stats()
    network.norm.momentum = None
    network.norm.train()
    user_networks.run_images(network)
    expected = network.eval()(torch.from_numpy(IMAGES)).detach().numpy()
    np.testing.assert_allclose(run(shim, model_id, IMAGES)["output"], expected, rtol=1e-4, atol=1e-5)


def test_calibrating_a_view_leaves_its_parent_alone(shim):
    model_id = open_network(shim, built=built("Depthwise")).model_id
    before = run(shim, model_id, IMAGES)["output"]
    found, _ = traced(shim, model_id, IMAGES)
    plan = Plan(found, [range(group.channels) for group in found.groups])
    work = work_pb2.OpenSubnet(model_id=model_id, tensors=plan.tensors, modules=plan.modules)
    view_id = shim.run([plan.sets], open_subnet=work)[0].succeeded.subnet_opened.model_id
    np.testing.assert_array_equal(run(shim, view_id, IMAGES)["output"], before)
    shim.run([{"0": IMAGES}], calibrate_norms=work_pb2.CalibrateNorms(model_id=view_id))
    assert np.abs(run(shim, view_id, IMAGES)["output"] - before).max() > 1e-3
    np.testing.assert_array_equal(run(shim, model_id, IMAGES)["output"], before)


def test_batches_that_cannot_calibrate(shim):
    model_id = open_network(shim, built=built("Depthwise")).model_id
    before = run(shim, model_id, IMAGES)["output"]
    wrong = work_pb2.PythonData(data_loader="user_networks:wrong_images")
    for batches, work, reason in (
        ([{"0": IMAGES}, {"0": IMAGES[:, :2]}], {}, "BAD_DATA"),
        ([], {}, "BAD_DATA"),
        ([Asking("OUTPUT", **{"0": IMAGES})], {}, "INVALID_REQUEST"),
        (None, {"data": wrong}, "BAD_DATA"),
        (None, {"forward_loop": "os:getcwd"}, "PYTHON_DENIED"),
    ):
        request = work_pb2.CalibrateNorms(model_id=model_id, **work)
        assert shim.fail(batches, calibrate_norms=request)[0] == reason
    np.testing.assert_array_equal(run(shim, model_id, IMAGES)["output"], before)


def test_a_network_without_statistics_takes_its_batches_all_the_same(shim):
    model_id = open_network(shim, built=built("Gated")).model_id
    last, _ = shim.run([{"0": IMAGES}], calibrate_norms=work_pb2.CalibrateNorms(model_id=model_id))
    assert last.succeeded.norms_calibrated.layers == 0


def test_a_language_model_gives_its_output_too(shim, checkpoints):
    last, _ = shim.run(open_model=work_pb2.OpenModel(path=str(checkpoints("llama")), device="auto", dtype="auto"))
    model_id = last.succeeded.model_opened.model_id
    ids = np.arange(6).reshape(2, 3)
    assert {name: one.shape for name, one in run(shim, model_id, input_ids=ids).items()} == {"logits": (2, 3, 50)}
