"""Folders of networks: written whole or not at all, and opened again as what was written."""

import hashlib
import json
import zlib

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from test_network_work import IMAGES, built, halved, open_network, opening, run, traced
from user_networks import build
from wire_slices import Plan

from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.errors import Reason, ShimError, cancelled
from prunebridge_shim.gen.prunebridge.v1 import work_pb2
from prunebridge_shim.networks.opening import NetworkOpener
from prunebridge_shim.networks.saving import NetworkSave, save_network


def saved(shim, model_id, job_dir, **options):
    last, _ = shim.run(save_network=work_pb2.SaveNetwork(model_id=model_id, job_dir=str(job_dir), **options))
    assert last.HasField("succeeded"), last.failed
    return last.succeeded.sliced


def architecture_of(plan, source):
    """What a client writes beside the weights."""
    return {
        "format": "prunebridge.architecture/1",
        "source": source,
        "modules": {one.module: dict(one.attributes) for one in plan.modules},
    }


def pruned_folder(shim, tmp_path, kind="Depthwise"):
    """A pruned network's folder, and what the network gives."""
    source = {"entrypoint": "user_networks:build", "kwargs": {"kind": kind}}
    model_id = open_network(shim, built=built(kind)).model_id
    found, tensors = traced(shim, model_id, IMAGES)
    plan = Plan(found, halved(found, tensors))
    work = work_pb2.CutModel(model_id=model_id, tensors=plan.tensors, modules=plan.modules)
    assert shim.run([plan.sets], cut_model=work)[0].HasField("succeeded")
    saved(shim, model_id, tmp_path / "job")
    folder = tmp_path / "job/child"
    shapes = {name: list(one.shape) for name, one in load_file(folder / "model.safetensors").items()}
    write(folder, {**architecture_of(plan, source), "tensors": shapes})
    return folder, run(shim, model_id, IMAGES)["output"]


def write(folder, architecture):
    (folder / "architecture.json").write_text(json.dumps(architecture))


def read(folder):
    return json.loads((folder / "architecture.json").read_text())


@pytest.mark.parametrize("kind", ["Depthwise", "Grouped", "Gated"])
def test_a_pruned_network_is_opened_again(shim, tmp_path, kind):
    folder, expected = pruned_folder(shim, tmp_path, kind)
    again = open_network(shim, pruned_dir=str(folder))
    np.testing.assert_array_equal(run(shim, again.model_id, IMAGES)["output"], expected)
    np.testing.assert_array_equal(rebuilt(folder)(torch.from_numpy(IMAGES)).detach().numpy(), expected)


def rebuilt(folder):
    """The few lines of plain PyTorch that rebuild a pruned network."""
    import user_networks

    architecture = read(folder)
    network = user_networks.build(**architecture["source"]["kwargs"])
    for path, sizes in architecture["modules"].items():
        for name, size in sizes.items():
            setattr(network.get_submodule(path), name, (size,) if name == "normalized_shape" else size)
    for name, tensor in load_file(folder / "model.safetensors").items():
        path, _, leaf = name.rpartition(".")
        owner = network.get_submodule(path)
        is_parameter = leaf in owner._parameters
        setattr(owner, leaf, torch.nn.Parameter(tensor) if is_parameter else tensor)
    return network.eval()


def without(field):
    return lambda architecture: architecture.pop(field)


def put(*path, value):
    def change(architecture):
        at = architecture
        for one in path[:-1]:
            at = at[one]
        at[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", value="prunebridge.architecture/2"), "is not of the format"),
        (without("tensors"), "has the fields format, modules, source"),
        (put("more", value=1), "has the fields format, modules, more"),
        (put("source", value={"entrypoint": "user_networks:build"}), "has a source"),
        (put("source", "kwargs", value=3), "of which entrypoint is no text, or kwargs no object"),
        (put("source", value={"transformers": "Absent", "config": {}}), "names 'Absent'"),
        (put("modules", "project", "in_channels", value=7), "where project.in_channels 7 makes axis 1"),
        (put("modules", "project", "in_channels", value=-7), "is no number of channels"),
        (put("modules", "project", "channels", value=7), "project.channels cannot be 7"),
        (put("tensors", "head.bias", value=[4]), "has head.bias as [4]"),
        (put("tensors", "head.bias", value="five"), "which is no shape"),
        (lambda architecture: architecture["tensors"].pop("head.bias"), "knows no tensor head.bias"),
    ],
)
def test_a_pruned_folder_whose_files_do_not_agree(shim, tmp_path, change, message):
    folder, _ = pruned_folder(shim, tmp_path)
    architecture = read(folder)
    change(architecture)
    write(folder, architecture)
    reason, told = shim.fail(open_network=opening(pruned_dir=str(folder)))
    assert (reason, message in told) == ("BAD_CHECKPOINT", True), told


def test_a_pruned_folder_runs_only_what_is_allowed(shim, tmp_path):
    folder, _ = pruned_folder(shim, tmp_path)
    architecture = read(folder)
    architecture["source"] = {"entrypoint": "os:getcwd", "kwargs": {}}
    write(folder, architecture)
    assert shim.fail(open_network=opening(pruned_dir=str(folder)))[0] == "PYTHON_DENIED"


def test_an_absent_folder(shim, tmp_path):
    assert shim.fail(open_network=opening(pruned_dir=str(tmp_path)))[0] == "PATH_NOT_FOUND"
    assert shim.fail(open_network=opening(checkpoint_dir=str(tmp_path)))[0] == "BAD_CHECKPOINT"


def test_what_is_saved_and_what_is_told_of_it(shim, tmp_path):
    model_id = open_network(shim, built=work_pb2.BuiltNetwork(entrypoint="user_networks:tied")).model_id
    told = saved(shim, model_id, tmp_path / "job", sha256=True)
    file = tmp_path / "job/child/model.safetensors"
    assert set(load_file(file)) == {"0.weight", "0.bias", "2.bias"}
    (shard,) = told.shards
    assert (shard.file, shard.bytes) == ("model.safetensors", file.stat().st_size)
    assert shard.crc32 == zlib.crc32(file.read_bytes())
    assert shard.sha256 == hashlib.sha256(file.read_bytes()).digest()
    assert told.folder_id == json.loads((tmp_path / "job/job.json").read_text())["folder"]


def test_a_save_that_fails_leaves_nothing(shim, tmp_path):
    model_id = open_network(shim, built=built("Plain")).model_id
    (tmp_path / "job").mkdir()
    (tmp_path / "job/other").write_text("of somebody else")
    work = work_pb2.SaveNetwork(model_id=model_id, job_dir=str(tmp_path / "job"))
    assert shim.fail(save_network=work)[0] == "INVALID_REQUEST"
    assert [one.name for one in (tmp_path / "job").iterdir()] == ["other"]
    work.job_dir = str(tmp_path / "absent/job")
    assert shim.fail(save_network=work)[0] == "PATH_NOT_FOUND"
    assert not (tmp_path / "absent").exists()


def test_a_save_that_is_cancelled_leaves_nothing(tmp_path):
    def tick(done, total):
        if done:
            raise cancelled()

    with pytest.raises(ShimError) as caught:
        save_network(build("Residual"), NetworkSave(tmp_path / "job"), tick)
    assert caught.value.reason is Reason.CANCELLED
    assert list(tmp_path.iterdir()) == []


def test_another_save_takes_the_place_of_what_was_left(shim, tmp_path):
    for kind in ("Plain", "Residual"):
        saved(shim, open_network(shim, built=built(kind)).model_id, tmp_path / "job")
    assert "stem.weight" in load_file(tmp_path / "job/child/model.safetensors")


RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "num_labels": 5,
}


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp("resnet")
    tf.ResNetForImageClassification(tf.ResNetConfig(**RESNET)).eval().save_pretrained(folder)
    return folder


def test_a_checkpoint_of_the_class_that_its_config_names(shim, resnet):
    opened = open_network(shim, checkpoint_dir=str(resnet))
    expected = tf.ResNetForImageClassification.from_pretrained(resnet)(torch.from_numpy(IMAGES)).logits
    given = run(shim, opened.model_id, pixel_values=IMAGES)
    np.testing.assert_allclose(given["logits"], expected.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["Pipeline"]}, "names 'Pipeline' as its architecture"),
        ({"architectures": []}, "names None"),
        ({"depths": [2, 1]}, "lacks resnet.encoder.stages.0.layers.1"),
    ],
)
def test_a_checkpoint_that_is_none(shim, resnet, tmp_path, change, message):
    config = json.loads((resnet / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    save_file(load_file(resnet / "model.safetensors"), tmp_path / "model.safetensors", {"format": "pt"})
    reason, told = shim.fail(open_network=opening(checkpoint_dir=str(tmp_path)))
    assert (reason, message in told) == ("BAD_CHECKPOINT", True), told


def test_pickled_weights_are_not_read(shim, resnet, tmp_path):
    (tmp_path / "config.json").write_text((resnet / "config.json").read_text())
    torch.save(load_file(resnet / "model.safetensors"), tmp_path / "pytorch_model.bin")
    assert shim.fail(open_network=opening(checkpoint_dir=str(tmp_path)))[0] == "BAD_CHECKPOINT"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({}, ""),
        ({"num_labels": 4}, "classifier.1.weight is [5, 16] and the config makes it [4, 16]"),
        ({"depths": [2, 1]}, "the config makes resnet.encoder.stages.0.layers.1"),
        (
            {"depths": [1, 1], "downsample_in_first_stage": True},
            "the config makes resnet.encoder.stages.0.layers.0.shortcut",
        ),
    ],
)
def test_a_config_is_compared_with_a_network(shim, resnet, change, difference):
    model_id = open_network(shim, checkpoint_dir=str(resnet)).model_id
    config = tf.ResNetConfig(**{**RESNET, **change}).to_dict() | {"architectures": ["ResNetForImageClassification"]}
    work = work_pb2.CheckConfig(model_id=model_id, config_json=json.dumps(config))
    found = shim.run(check_config=work)[0].succeeded.config_checked.difference
    assert found.startswith(difference)
    assert bool(found) == bool(difference)


def test_heads_that_no_shape_tells_are_compared_too(shim, tmp_path):
    sizes = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 8}
    model = tf.BertForMaskedLM(tf.BertConfig(**sizes, num_attention_heads=4, max_position_embeddings=16))
    model.save_pretrained(tmp_path)
    model_id = open_network(shim, checkpoint_dir=str(tmp_path)).model_id
    config = json.loads((tmp_path / "config.json").read_text())
    for heads in (4, 2):
        work = work_pb2.CheckConfig(model_id=model_id, config_json=json.dumps({**config, "num_attention_heads": heads}))
        difference = shim.run(check_config=work)[0].succeeded.config_checked.difference
        assert ("num_attention_heads is 4" in difference) == (heads == 2)


@pytest.mark.parametrize(
    ("change", "cause"),
    [({"hidden_sizes": [16, 25]}, "divisible by groups"), ({"groups_width": 2.5}, "groups_width")],
)
def test_sizes_that_no_config_makes_are_a_difference(shim, tmp_path, change, cause):
    stages = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1], "groups_width": 8}
    tf.RegNetModel(tf.RegNetConfig(**stages)).save_pretrained(tmp_path)
    model_id = open_network(shim, checkpoint_dir=str(tmp_path)).model_id
    config = json.loads((tmp_path / "config.json").read_text())
    work = work_pb2.CheckConfig(model_id=model_id, config_json=json.dumps({**config, **change}))
    difference = shim.run(check_config=work)[0].succeeded.config_checked.difference
    assert difference.startswith("the config makes no RegNetModel: ")
    assert cause in difference


@pytest.mark.parametrize("config", ["{", "[]", "{}", '{"architectures": ["Pipeline"]}'])
def test_a_config_of_no_network(shim, resnet, config):
    model_id = open_network(shim, checkpoint_dir=str(resnet)).model_id
    work = work_pb2.CheckConfig(model_id=model_id, config_json=config)
    assert shim.fail(check_config=work)[0] == "INVALID_REQUEST"


def test_networks_of_one_function_share_nothing():
    opener = NetworkOpener(EntryPoints(["user_networks"]), torch.device("cpu"), "auto")
    first, second = (opener.built("user_networks:always_the_same", {}, None) for _ in range(2))
    with torch.no_grad():
        first.weight.zero_()
    assert second.weight.abs().sum() > 0
