"""Megatron checkpoints on storage, held by a job of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from client import Client, FeedCall, Valve, feed_messages, reason_of
from golden import GOLDEN
from launch import HERE, read, run_jobs
from listeners import write_token
from safetensors.numpy import load_file, save_file
from test_guests import TOKEN, batches_of, check_scores, collect, handshake

SCRIPT = HERE.parents[2] / "test" / "fixtures" / "python" / "megatron_folders.py"
CONFIG = {
    "activation_func": {"_call_": False, "_target_": "torch.nn.functional.silu"},
    "add_bias_linear": False,
    "gated_linear_unit": True,
    "hidden_size": 64,
    "ffn_hidden_size": 128,
    "kv_channels": 8,
    "num_attention_heads": 8,
    "num_query_groups": 4,
    "num_layers": 4,
    "num_moe_experts": None,
    "normalization": "RMSNorm",
    "position_embedding_type": "rope",
    "seq_length": 256,
    "share_embeddings_and_output_weights": False,
    "vocab_size": 250,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The golden parents as Megatron-Core saves them, in the folders of all writers."""
    out = tmp_path_factory.mktemp("saved")
    done = subprocess.run([sys.executable, SCRIPT, GOLDEN, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (out / "nemo" / "context").mkdir()
    nemo = {"config": {**CONFIG, "vocab_size": None}}
    (out / "nemo" / "context" / "model.yaml").write_text(json.dumps(nemo))
    bridge = out / "llama-tp2" / "iter_0000010"
    (bridge / "run_config.yaml").write_text(json.dumps({"model": CONFIG, "train": {}}))
    (bridge / "common.pt").unlink()
    as_safetensors(out / "safetensors")
    return out


def as_safetensors(folder):
    """A folder as children are saved in: two files, norms under either name."""
    folder.mkdir()
    tensors = load_file(GOLDEN / "llama-gqa" / "parent.mcore.safetensors")
    plain = "decoder.layers.1.input_layernorm.weight"
    tensors["decoder.layers.1.self_attention.linear_qkv.layer_norm_weight"] = tensors.pop(plain)
    names = sorted(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in files.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in files.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {**CONFIG, "architectures": ["GPTModel"], "activation_func": "silu", "max_position_embeddings": 256}
    (folder / "config.json").write_text(json.dumps(config))


def loaded(parent, path, **sizes):
    short = {"tensor": "tp", "pipeline": "pp", "expert": "ep"}
    return {
        "parent": parent,
        "path": path,
        "sizes": sizes,
        **{short[key]: size for key, size in sizes.items() if key in short},
    }


ONE = {
    "arguments": loaded("llama-gqa", "llama"),
    "squared": loaded("nemotron-mha", "nemotron"),
    "experts": loaded("mixtral-small", "mixtral/iter_0000010"),
}
TWO = {
    "tp2": loaded("llama-gqa", "llama", tensor=2),
    "bridge-tp2": loaded("llama-gqa", "llama-tp2", tensor=2),
    "bridge-pp2": loaded("llama-gqa", "llama-tp2", pipeline=2),
    "nemo-pp2": loaded("llama-gqa", "nemo", pipeline=2),
    "nemo-weights": loaded("llama-gqa", "nemo/weights"),
    "saved-pp2-tp2": loaded("llama-gqa", "llama-pp2", tensor=2),
    "experts-ep2": loaded("mixtral-small", "mixtral", expert=2),
    "experts-numbered-ep2": loaded("mixtral-small", "mixtral-numbered", expert=2),
    "experts-tp2": {**loaded("mixtral-small", "mixtral-ep2", tensor=2, expert_tensor=2), "etp": 2},
    "safetensors-tp2": loaded("llama-gqa", "safetensors", tensor=2),
    "safetensors-pp2": loaded("llama-gqa", "safetensors", pipeline=2),
}
VOCABULARY = ("embedding.word_embeddings.weight", "output_layer.weight")
BAD = {
    "missing": "PATH_NOT_FOUND",
    "nothing": "BAD_CHECKPOINT",
    "sizes": "BAD_CHECKPOINT",
    "latent": "BAD_CHECKPOINT",
    "fewer-layers": "BAD_CHECKPOINT",
    "fewer-layers-plain": "BAD_CHECKPOINT",
    "harmful": "BAD_CHECKPOINT",
    "truncated": "BAD_CHECKPOINT",
}


@pytest.fixture(scope="module")
def outcome(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outcome")
    bad = {name: loaded("llama-gqa", bad_folder(name, saved)) for name in BAD}
    odd = loaded("llama-gqa", with_odd_vocabulary(saved), tensor=2)
    jobs = {
        name: (ranks, [{"id": one, **case, "path": str(saved / case["path"])} for one, case in table.items()])
        for name, ranks, table in (("one", 1, {**ONE, **bad}), ("two", 2, {**TWO, "odd-vocabulary": odd}))
    }
    return (folder, *run_jobs("hold", folder, jobs))


def bad_folder(name, saved):
    """A folder that cannot be loaded, beside the good ones."""
    if name == "missing":
        return "nowhere"
    folder = saved / f"bad-{name}"
    if name == "fewer-layers-plain":
        shutil.copytree(saved / "safetensors", folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_layers": 3}))
        return folder.name
    shutil.copytree(saved / "llama-tp2" / "iter_0000010", folder)
    changes = {
        "sizes": {"ffn_hidden_size": 96},
        "latent": {"multi_latent_attention": True},
        "fewer-layers": {"num_layers": 3},
    }.get(name, {})
    (folder / "run_config.yaml").write_text(json.dumps({"model": {**CONFIG, **changes}}))
    if name == "nothing":
        (folder / "run_config.yaml").unlink()
    if name == "harmful":
        (folder / ".metadata").write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % str(saved / "ran").encode())
    if name == "truncated":
        for file in folder.glob("*.distcp"):
            os.truncate(file, file.stat().st_size // 2)
    return folder.name


def with_odd_vocabulary(saved):
    """A folder with a row less of the vocabulary than the golden parent has."""
    folder = saved / "odd-vocabulary"
    shutil.copytree(saved / "safetensors", folder)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        rows = {name: tensors[name][:255] for name in VOCABULARY if name in tensors}
        save_file({**tensors, **rows}, file)
    return folder.name


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_every_parameter_is_the_golden_one(name, outcome):
    folder, exits, log = outcome
    assert exits == {"one": [0], "two": [0, 0]}, log
    for rank in range(2 if name in TWO else 1):
        told = read(folder, f"{name}.{rank}")
        assert told.get("differing") == [], (told, log)
        assert told["loaded"] > 10
        assert told["config"]["max_position_embeddings"] == 256
    if "bridge" in name:
        assert (told["config"]["vocab_size"], told["config"]["padded_vocab_size"]) == (250, 256)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_loaded_is_said(name, outcome, saved):
    folder, _exits, _log = outcome
    told = read(folder, f"{name}.0")
    assert told["reason"] == BAD[name], told
    assert str(saved) in told["message"] or "linear_fc1" in told["message"]
    assert not (saved / "ran").exists()


def test_a_vocabulary_that_ranks_cannot_share_out_is_not_padded(outcome):
    folder, _exits, _log = outcome
    for rank in range(2):
        told = read(folder, f"odd-vocabulary.{rank}")
        assert told["reason"] == "INVALID_REQUEST"
        assert "the vocabulary's 255 stored rows are not a multiple of" in told["message"]


class Command:
    """The command, as a user starts it."""

    def __init__(self, folder, ranks, *flags, launcher=(str(HERE / "product.py"),)):
        token = write_token(folder / "token", TOKEN)
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        args = ["megatron", "--token-file", str(token), "--root", str(folder), "--device", "cpu", *map(str, flags)]
        self.process = subprocess.Popen(
            [sys.executable, *torchrun, *launcher, *args],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        self.ready = json.loads(line) if line else None

    def end(self):
        self.process.terminate()
        out, log = self.process.communicate(timeout=60)
        assert out == "", out
        return self.process.returncode, log


def test_the_command_serves_the_checkpoint_until_it_is_told_to_end(saved, tmp_path):
    flags = ["--tensor-model-parallel-size", 2, "--listen", "127.0.0.1:0"]
    command = Command(tmp_path, 2, "--checkpoint", saved / "llama", *flags)
    try:
        assert command.ready["event"] == "ready", command.ready
        client = Client(command.ready["address"], TOKEN)
        told = handshake(client)
        assert told.boot_id == command.ready["boot_id"]
        assert (told.ranks.world_size, told.ranks.tensor) == (2, 2)
        last, sums = client.run(batches_of("llama-gqa"), collect=collect(client, "llama-gqa"))
        assert last.HasField("succeeded"), last
        check_scores(sums, "llama-gqa")
        children = children_of(command.process.pid)
        assert len(children) == 2
        operation = client.start(collect=collect(client, "llama-gqa", feed_id="unending"))
        valve = Valve(batches_of("llama-gqa"))
        FeedCall(client.feeds.Feed(feed_messages("unending", valve), timeout=60))
        valve.let(1)
        ended = []
        watching = threading.Thread(target=lambda: ended.extend(client.watch(operation)), daemon=True)
        watching.start()
    finally:
        _, log = command.end()
        valve.let(100)
    watching.join(60)
    assert reason_of(ended[-1].failed) == "CANCELLED"
    assert "a defect of the shim" not in log, log
    assert "RANK_LOST" not in log, log
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_a_lost_rank_ends_the_command(saved, tmp_path):
    flags = ["--pipeline-model-parallel-size", 2, "--listen", "127.0.0.1:0", "--deadline", 10]
    command = Command(tmp_path, 2, "--checkpoint", saved / "llama", *flags)
    try:
        follower = next(pid for pid in children_of(command.process.pid) if pid != command.ready["pid"])
        os.kill(follower, signal.SIGKILL)
        assert command.process.wait(60) != 0
    finally:
        command.process.kill()
        command.process.communicate()
    assert not Path(f"/proc/{command.ready['pid']}").exists()


def test_the_command_says_why_it_does_not_start(saved, tmp_path):
    command = Command(tmp_path, 1, "--checkpoint", tmp_path, "--listen", "127.0.0.1:0")
    assert command.process.wait(60) == 1
    assert (command.ready["event"], command.ready["reason"]) == ("failed", "BAD_CHECKPOINT")
    command.process.communicate()
    flags = ["--tensor-model-parallel-size", 2, "--listen", "127.0.0.1:0"]
    command = Command(tmp_path, 1, "--checkpoint", saved / "llama", *flags)
    assert command.process.wait(60) == 1
    assert (command.ready["event"], command.ready["reason"]) == ("failed", "INVALID_REQUEST")
    assert "1 ranks are no multiple of 2" in command.ready["message"]
    command.process.communicate()


@pytest.mark.parametrize("lacking", ["megatron", "a GPU"])
def test_the_command_says_what_it_lacks(lacking, saved, tmp_path):
    hide = "import sys; sys.modules['megatron'] = None; " if lacking == "megatron" else ""
    code = f"{hide}import runpy; runpy.run_module('prunebridge_shim', run_name='__main__')"
    flags = ["--checkpoint", saved / "llama", "--listen", "127.0.0.1:0"]
    command = Command(tmp_path, 1, *flags, launcher=("-c", code))
    assert command.process.wait(60) == 1
    assert (command.ready["event"], command.ready["reason"]) == ("failed", "MISSING_DEPENDENCY"), command.ready
    assert ("pip install 'prunebridge-shim[megatron]'" in command.ready["hint"]) == (lacking == "megatron")
    command.process.communicate()


def children_of(pid):
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]
