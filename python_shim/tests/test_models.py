import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import as_feed, asking, no_tick, token_ids

from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.collect.run import collect
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.checkpoint import load_model
from prunebridge_shim.models.forward import forward
from prunebridge_shim.models.loss import evaluate_loss, summed_cross_entropy
from prunebridge_shim.models.store import ModelStore, count_parameters, pick_device
from prunebridge_shim.models.tokenizing import tokenize
from prunebridge_shim.tensors import Ask, HostTensor

CPU = torch.device("cpu")


def load(path, dtype="auto"):
    return load_model(str(path), CPU, dtype)


def refused(call, reason):
    with pytest.raises(ShimError) as caught:
        call()
    assert caught.value.reason is reason
    return caught.value.message


@pytest.fixture
def editable(checkpoints, tmp_path):
    """A copy of the tied llama, and a function that changes its tensors."""
    folder = shutil.copytree(checkpoints("llama-tied"), tmp_path / "copy")

    def edit(change):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return folder, edit


@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen2", "nemotron"])
def test_models_open_as_they_were_saved(checkpoints, name):
    model = load(checkpoints(name))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    stored = load_file(checkpoints(name) / "model.safetensors")
    for key, tensor in stored.items():
        assert torch.equal(model.state_dict()[key], tensor)
        assert model.state_dict()[key].dtype is tensor.dtype
    assert count_parameters(model) == sum(tensor.numel() for tensor in stored.values())


def test_the_dtype_is_as_asked(checkpoints):
    assert load(checkpoints("llama"), "bfloat16").dtype is torch.bfloat16
    assert "none of auto, float32" in refused(lambda: load(checkpoints("llama"), "int4"), Reason.INVALID_REQUEST)


def test_a_folder_that_is_not_there_or_no_checkpoint(tmp_path):
    refused(lambda: load(tmp_path / "nothing"), Reason.PATH_NOT_FOUND)
    assert "no config.json" in refused(lambda: load(tmp_path), Reason.BAD_CHECKPOINT)


def test_a_key_that_is_missing(editable):
    folder, edit = editable
    edit(lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "lacks model.layers.1.mlp.up_proj.weight" in refused(lambda: load(folder), Reason.BAD_CHECKPOINT)


def test_a_key_that_is_left_over(editable):
    folder, edit = editable
    edit(lambda tensors: tensors.update({f"extra.{i}": torch.ones(1) for i in range(7)}))
    assert "has no place for extra.0, extra.1, extra.2, extra.3, extra.4 and 2 more" in refused(
        lambda: load(folder), Reason.BAD_CHECKPOINT
    )


def test_keys_that_need_no_place(checkpoints, tmp_path):
    pretraining = {"bert.pooler.dense.bias": torch.ones(32), "cls.seq_relationship.weight": torch.ones(2, 32)}
    folder = shutil.copytree(checkpoints("bert"), tmp_path / "bert")
    stored = load_file(folder / "model.safetensors") | pretraining
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    assert type(load_model(str(folder), CPU, "auto", list(pretraining))).__name__ == "BertForMaskedLM"
    assert "has no place for cls.seq_relationship.weight" in refused(
        lambda: load_model(str(folder), CPU, "auto", ["bert.pooler.dense.bias"]), Reason.BAD_CHECKPOINT
    )


def test_a_key_of_another_shape(editable):
    folder, edit = editable
    edit(lambda tensors: tensors.update({"model.norm.weight": torch.ones(5)}))
    assert "another shape for model.norm.weight" in refused(lambda: load(folder), Reason.BAD_CHECKPOINT)


def test_a_config_of_no_known_model(editable):
    folder, _ = editable
    (folder / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    assert "cannot be loaded" in refused(lambda: load(folder), Reason.BAD_CHECKPOINT)


def test_a_pickle_is_never_read(editable):
    folder, _ = editable
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(lambda: load(folder), Reason.BAD_CHECKPOINT)


def test_the_store_forgets_what_is_closed():
    store = ModelStore()
    model_id = store.add("a model")
    assert store.get(model_id) == "a model"
    store.remove(model_id)
    assert f"no model '{model_id}' is open" in refused(lambda: store.get(model_id), Reason.UNKNOWN_MODEL)


def test_an_unknown_device():
    assert pick_device("cpu") == CPU
    refused(lambda: pick_device("cuda:99"), Reason.INVALID_REQUEST)
    refused(lambda: pick_device("abacus"), Reason.INVALID_REQUEST)


def test_the_loss_is_transformers_own(checkpoints, rng):
    model = load(checkpoints("llama"))
    ids = token_ids(rng)
    loss, tokens = evaluate_loss(model, as_feed(ids), no_tick)
    expected = np.mean(
        [float(model(input_ids=torch.from_numpy(one), labels=torch.from_numpy(one)).loss) for one in ids]
    )
    assert loss == pytest.approx(expected, rel=1e-6)
    assert tokens == 3 * 2 * 8


def test_the_loss_is_the_same_in_chunks(monkeypatch, rng):
    logits = torch.randn(2, 7, 50)
    targets = torch.randint(0, 50, (2, 7))
    whole = summed_cross_entropy(logits, targets)
    monkeypatch.setattr("prunebridge_shim.models.loss.CHUNK_ELEMENTS", 100)
    assert summed_cross_entropy(logits, targets) == pytest.approx(whole, rel=1e-6)


def test_logits_are_the_models(checkpoints, rng):
    model = load(checkpoints("qwen2"))
    ids = token_ids(rng)
    asks, answers = asking(ids, ["logits", "nothing", "last_logits"])
    assert forward(model, asks, no_tick) == 3
    assert sorted(answers) == [0, 2]
    whole, last = ({name: (t.dtype, t.array) for name, t in answers[i].items()}["logits"] for i in (0, 2))
    assert (whole[0], last[0]) == ("F32", "F32")
    assert np.array_equal(whole[1], model(input_ids=torch.from_numpy(ids[0])).logits.float().numpy())
    assert np.array_equal(last[1], model(input_ids=torch.from_numpy(ids[2])).logits[:, -1].float().numpy())


def test_the_loss_of_one_batch_is_that_of_a_feed_of_one(checkpoints, rng):
    model = load(checkpoints("llama"))
    ids = token_ids(rng)
    asks, answers = asking(ids, ["loss"] * 3)
    forward(model, asks, no_tick)
    for one, answer in zip(ids, answers.values(), strict=True):
        assert answer["loss"].dtype == "F64"
        assert float(answer["loss"].array) == evaluate_loss(model, as_feed([one]), no_tick)[0]


def test_a_batch_may_hold_further_arguments_of_forward(checkpoints, rng):
    model = load(checkpoints("llama"))
    (ids,) = token_ids(rng, batches=1)
    mask, positions = np.ones_like(ids), np.arange(ids.shape[1])[None] + 3
    mask[0, :4] = 0
    extra = {"attention_mask": HostTensor("I64", mask), "position_ids": HostTensor("I64", positions)}
    asks, answers = asking([ids], ["logits"], **extra)
    forward(model, asks, no_tick)
    named = {"attention_mask": torch.from_numpy(mask), "position_ids": torch.from_numpy(positions)}
    expected = model(input_ids=torch.from_numpy(ids), **named).logits.numpy()
    assert np.array_equal(answers[0]["logits"].array, expected)
    assert not np.array_equal(expected, model(input_ids=torch.from_numpy(ids)).logits.numpy())


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"mask": HostTensor("I64", np.ones((2, 9)))}, "holds mask, which the model's forward does not take"),
        ({"use_cache": HostTensor("BOOL", np.ones(1, bool))}, "holds use_cache"),
        (
            {"attention_mask": HostTensor("I64", np.ones((2, 5), np.int64))},
            r"attention_mask of batch 0 is I64 \[2, 5\]",
        ),
        ({"attention_mask": HostTensor("F32", np.ones((2, 3, 4, 9), "f4"))}, r"cannot run a batch of .*\[2, 3, 4, 9\]"),
    ],
)
def test_further_arguments_that_do_not_fit(checkpoints, rng, extra, says):
    asks, _ = asking(token_ids(rng, batches=1), ["nothing"], **extra)
    with pytest.raises(ShimError, match=says) as caught:
        forward(load(checkpoints("llama")), asks, no_tick)
    assert caught.value.reason is Reason.BAD_DATA


@pytest.mark.parametrize("run", [evaluate_loss, forward, lambda m, feed, tick: collect(m, [], feed, tick)])
@pytest.mark.parametrize(
    ("feed", "says"),
    [
        ([], "ended before its first batch"),
        (
            [{"input_ids": HostTensor("I64", np.array([[0, 50]]))}],
            "token id 50 in batch 0 is outside of the vocabulary of 50",
        ),
        ([{"input_ids": HostTensor("I64", np.array([[0, -1]]))}], "token id -1 in batch 0"),
        ([{"input_ids": HostTensor("I64", np.arange(3))}], r"I64 \[3\]; token ids are I64"),
        ([{"input_ids": HostTensor("F32", np.zeros((1, 2), np.float32))}], r"F32 \[1, 2\]"),
        ([{"input_ids": HostTensor("I64", np.zeros((1, 0), np.int64))}], r"I64 \[1, 0\]"),
        ([{"ids": HostTensor("I64", np.array([[0]]))}], "holds ids where a tensor input_ids belongs"),
    ],
)
def test_batches_that_do_not_fit(checkpoints, run, feed, says):
    with pytest.raises(ShimError, match=says) as caught:
        run(load(checkpoints("llama")), map(Ask, feed), no_tick)
    assert caught.value.reason is Reason.BAD_DATA


def test_a_loss_needs_a_second_token(checkpoints):
    feed = as_feed([np.array([[1], [2]])])
    message = refused(lambda: evaluate_loss(load(checkpoints("llama")), feed, no_tick), Reason.BAD_DATA)
    assert "second token" in message


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    vocab = {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "?": 4}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


def texts(*contents):
    return [{"text": HostTensor("U8", np.frombuffer(content, np.uint8))} for content in contents]


def test_texts_become_ids_and_end(tokenizer_folder):
    ids, count = tokenize(str(tokenizer_folder), texts(b"a b", b"", b"b c"), no_tick)
    assert ids.tolist() == [2, 3, 1, 1, 3, 4, 1]
    assert ids.dtype == np.int64
    assert count == 3


def test_what_is_no_text(tokenizer_folder, tmp_path):
    folder = str(tokenizer_folder)
    assert "text 1 is no UTF-8 at byte 1" in refused(
        lambda: tokenize(folder, texts(b"a", b"b\xff"), no_tick), Reason.BAD_DATA
    )
    refused(lambda: tokenize(folder, [], no_tick), Reason.BAD_DATA)
    refused(lambda: tokenize(str(tmp_path / "no"), [], no_tick), Reason.PATH_NOT_FOUND)
    refused(lambda: tokenize(str(tmp_path), [], no_tick), Reason.BAD_CHECKPOINT)


def test_hooks_over_one_model_do_not_stay(checkpoints, rng):
    model = load(checkpoints("llama"))
    points = [HookPoint("k", "model.layers.0.mlp", "mean_abs_square_in")]
    collect(model, points, as_feed(token_ids(rng)), no_tick)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
