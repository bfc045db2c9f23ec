"""Gradients of masks over the wire: batches and losses from all sides."""

import threading
from concurrent.futures import Future

import numpy as np
import pytest
import user_functions
from client import Asking, reason_of
from test_work import SETS, config_of, open_model, slices_of, wire_slice

from prunebridge_shim.gen.prunebridge.v1 import work_pb2

FFN = work_pb2.Mask(key="ffn", module="model.layers.1.mlp.down_proj", side="HOOK_SIDE_INPUT", units=48)
HEADS = work_pb2.Mask(key="heads", module="model.layers.2.self_attn.o_proj", side="HOOK_SIDE_INPUT", units=4)
IDS = [ids.numpy() for ids in user_functions.batches()]
FED = [{"input_ids": ids} for ids in IDS]


def work_on(shim, checkpoints, name="llama", **work):
    """A request for the sums of both masks, by the loss of a causal language model where `work` says nothing else."""
    data = {key: work.pop(key) for key in ("loader", "collect_func", "most") if key in work}
    masks = work.pop("masks", (FFN, HEADS))
    request = work_pb2.CollectGradients(
        model_id=open_model(shim, checkpoints(name)).model_id,
        masks=masks,
        **(work or {"built_in": "BUILT_IN_LOSS_CAUSAL_LM"}),
    )
    if data:
        request.data.data_loader = f"user_functions:{data['loader']}"
        request.data.max_batches = data.get("most", 0)
    if "collect_func" in data:
        request.data.collect_func = f"user_functions:{data['collect_func']}"
    return request


@pytest.fixture(scope="module")
def expected(shim, checkpoints):
    last, tensors = shim.run(FED, collect_gradients=work_on(shim, checkpoints))
    done = last.succeeded.gradients_collected
    assert (done.batches, done.samples, done.tokens) == (3, 6, 54)
    assert done.pass_seconds > 0
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"ffn": (48,), "heads": (4,)}
    return done.loss, tensors


@pytest.mark.parametrize(
    "work",
    [
        {"loss_func": "user_functions:mean_loss"},
        {"loader": "loader"},
        {"loader": "loader", "loss_func": "user_functions:mean_loss"},
        {"loader": "loader", "collect_func": "as_labelled"},
        {"loader": "loader", "collect_func": "as_labelled", "loss_func": "user_functions:own_loss"},
        {"loader": "batches_with_names", "loss_func": "user_functions:loss_by_names"},
        {"loader": "labelled_batches"},
        {"loader": "labelled_batches", "loss_func": "user_functions:own_loss"},
    ],
    ids=str,
)
def test_every_way_sums_the_same(shim, checkpoints, expected, work):
    batches = None if "loader" in work else FED
    last, tensors = shim.run(batches, collect_gradients=work_on(shim, checkpoints, **work))
    loss, sums = expected
    assert last.succeeded.gradients_collected.loss == pytest.approx(loss, rel=1e-5)
    for key, of in sums.items():
        np.testing.assert_allclose(tensors[key], of, rtol=1e-3)


def test_labels_of_a_feed_are_forwards_where_python_takes_the_loss(shim, checkpoints, expected):
    work = work_on(shim, checkpoints, loss_func="user_functions:own_loss")
    last, _ = shim.run([{"input_ids": ids, "labels": ids} for ids in IDS], collect_gradients=work)
    assert last.succeeded.gradients_collected.loss == pytest.approx(expected[0], rel=1e-5)


def test_no_more_batches_are_drawn_than_asked_for(shim, checkpoints):
    last, _ = shim.run(collect_gradients=work_on(shim, checkpoints, loader="loader", most=2))
    assert last.succeeded.gradients_collected.batches == 2


@pytest.mark.parametrize("name", ["bert", "bert-headless", "bert-classes", "gptj"])
def test_checkpoints_open_as_the_class_that_they_name(shim, checkpoints, name):
    prefix = "" if name == "bert-headless" else "bert."
    module = "transformer.h.0.attn.out_proj" if name == "gptj" else f"{prefix}encoder.layer.0.attention.output.dense"
    mask = work_pb2.Mask(key="heads", module=module, side="HOOK_SIDE_INPUT", units=4)
    losses = {
        "bert": "MASKED_LM",
        "bert-headless": "MSE",
        "bert-classes": "SEQUENCE_CLASSIFICATION",
        "gptj": "CAUSAL_LM",
    }
    labels = {
        "bert": IDS[0],
        "bert-headless": np.zeros((2, 9, 32), np.float32),
        "bert-classes": np.array([[0, 2]]),
        "gptj": IDS[0],
    }[name]
    work = work_on(shim, checkpoints, name=name, masks=[mask], built_in=f"BUILT_IN_LOSS_{losses[name]}")
    batch = {"input_ids": IDS[0], "attention_mask": np.ones((2, 9), np.int64), "labels": labels}
    if name != "gptj":
        batch["token_type_ids"] = np.zeros((2, 9), np.int64)
    _, tensors = shim.run([batch], collect_gradients=work)
    assert tensors["heads"].all()
    forward = work_pb2.Forward(model_id=work.model_id)
    if name in {"bert-headless", "bert-classes"}:
        reason, message = shim.fail([Asking("LOSS", input_ids=IDS[0])], forward=forward)
        assert (reason, "this takes logits with 3 axes" in message) == ("INVALID_REQUEST", True)


@pytest.mark.parametrize(
    ("function", "reason", "message"),
    [
        ("loss_vector", "PYTHON_FAILED", "gave a tensor float32 [9, 50] for batch 0 where a scalar tensor belongs"),
        ("loss_number", "PYTHON_FAILED", "gave float for batch 0 where a scalar tensor belongs"),
        ("loss_detached", "BAD_DATA", "the loss of batch 0 depends on no mask"),
        ("loss_that_fails", "PYTHON_FAILED", "loss_that_fails failed: KeyError"),
        ("no_such_loss", "PYTHON_FAILED", "there is no user_functions:no_such_loss"),
    ],
)
def test_losses_of_python_that_are_none(shim, checkpoints, function, reason, message):
    work = work_on(shim, checkpoints, loss_func=f"user_functions:{function}")
    found, told = shim.fail(FED, collect_gradients=work)
    assert (found, message in told) == (reason, True), told


@pytest.mark.parametrize(
    ("work", "reason", "message"),
    [
        ({"built_in": "BUILT_IN_LOSS_UNSPECIFIED"}, "INVALID_REQUEST", "there is no loss to take gradients of"),
        ({"client": False}, "INVALID_REQUEST", "there is no loss to take gradients of"),
        ({"loss_func": "os:getcwd"}, "PYTHON_DENIED", "os:getcwd is not allowed"),
        ({"client": True, "loader": "loader"}, "INVALID_REQUEST", "of which the client cannot take the loss"),
        ({"loader": "broken_loader"}, "PYTHON_FAILED", "the dataset server is down"),
        ({"loader": "loader", "collect_func": "as_strange"}, "BAD_DATA", "batch 0 holds token_type_ids"),
        ({"loader": "loader", "collect_func": "as_mismatched"}, "PYTHON_FAILED", "as_mismatched failed"),
        ({"loader": "loader", "collect_func": "as_listed_labels"}, "BAD_DATA", "batch 0 has labels that are list"),
        ({"masks": [work_pb2.Mask(key="m", module="lm_head", units=1)]}, "INVALID_REQUEST", "is on side 0"),
        ({"masks": []}, "INVALID_REQUEST", "there is no mask"),
    ],
    ids=str,
)
def test_requests_that_contradict_themselves(shim, checkpoints, work, reason, message):
    batches = None if "loader" in work else FED
    found, told = shim.fail(batches, collect_gradients=work_on(shim, checkpoints, **work))
    assert (found, message in told) == (reason, True), told


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"input_ids": IDS[0], "atention_mask": IDS[0]}, "batch 1 holds atention_mask"),
        ({"input_ids": IDS[0] + 50}, "in batch 1 is outside of the vocabulary"),
        (Asking("LOSS", input_ids=IDS[0]), "batch 1 asks for loss"),
    ],
)
def test_batches_that_do_not_fit_are_named(shim, checkpoints, batch, message):
    _, told = shim.fail([FED[0], batch], collect_gradients=work_on(shim, checkpoints))
    assert message in told


def test_views_have_no_gradients(shim, checkpoints):
    folder = checkpoints("llama")
    model_id = open_model(shim, folder).model_id
    cut = {"tensors": [wire_slice(tensor) for tensor in slices_of(folder)], "config_json": config_of(folder)}
    last, _ = shim.run([SETS], open_subnet=work_pb2.OpenSubnet(model_id=model_id, **cut, units=["model.layers.0"]))
    work = work_pb2.CollectGradients(
        model_id=last.succeeded.subnet_opened.model_id, masks=[FFN], built_in="BUILT_IN_LOSS_CAUSAL_LM"
    )
    reason, message = shim.fail(FED, collect_gradients=work)
    assert (reason, f"is a view of {model_id}" in message) == ("INVALID_REQUEST", True)


def judged(shim, work, judge):
    """Runs work whose losses `judge` takes, given a batch's number and its output; gives the operation's id."""
    calls = Future()

    def batches():
        for number, batch in enumerate(FED):
            yield Asking("OUTPUT", **batch)
            yield from judge(number, calls.result(20).await_answer(2 * number))

    work.feed_id = f"judged-{work.model_id}"
    operation_id = shim.start(collect_gradients=work)
    calls.set_result(shim.feed_in_background(work.feed_id, batches()))
    return operation_id


def by_mean(_number, answer):
    logits = answer["logits"]
    gradient = np.full(logits.shape, 1 / logits.size, np.float32)
    yield {"loss": np.float64(logits.mean()).reshape(()), "gradient.logits": gradient}


def test_a_loss_that_the_client_takes(shim, checkpoints):
    operation_id = judged(shim, work_on(shim, checkpoints, client=True), by_mean)
    last = shim.watch(operation_id)[-1]
    by_python, tensors = shim.run(
        FED, collect_gradients=work_on(shim, checkpoints, loss_func="user_functions:mean_logit")
    )
    done, same = last.succeeded.gradients_collected, by_python.succeeded.gradients_collected
    assert (done.batches, done.samples, done.tokens) == (3, 6, 54)
    assert done.loss == pytest.approx(same.loss, rel=1e-5)
    for key, of in shim.read(operation_id).items():
        np.testing.assert_allclose(of, tensors[key], rtol=1e-3)


def changed(**tensors):
    """By mean, but for batch 1, which has these tensors in the place of its own; None leaves one out."""

    def judge(number, answer):
        (reply,) = by_mean(number, answer)
        if number == 1:
            reply = {name: tensor for name, tensor in {**reply, **tensors}.items() if tensor is not None}
        yield reply

    return judge


def nothing_for_batch_1(number, answer):
    yield from by_mean(number, answer) if number == 0 else ()


def ending_after_batch_0(number, answer):
    yield from by_mean(number, answer)
    yield Asking("LOSS", input_ids=IDS[0])


NAN = np.full((2, 9, 50), np.nan, np.float32)


@pytest.mark.parametrize(
    ("judge", "reason", "message"),
    [
        (changed(loss=None), "INVALID_REQUEST", "the loss of batch 1 holds nothing where F64 [] loss belongs"),
        (changed(loss=np.zeros((), np.float32)), "INVALID_REQUEST", "holds F32 [] where F64 [] loss belongs"),
        (changed(loss=np.float64("nan").reshape(())), "BAD_DATA", "the loss of batch 1 is nan"),
        (changed(**{"gradient.logits": None}), "INVALID_REQUEST", "holds no gradient; it takes gradient.logits"),
        (changed(gradient=NAN), "INVALID_REQUEST", "the loss of batch 1 holds gradient; it takes gradient.logits"),
        (changed(**{"gradient.logits": NAN[0]}), "INVALID_REQUEST", "the output logits is F32 [2, 9, 50]"),
        (changed(**{"gradient.logits": NAN}), "BAD_DATA", "client's gradient of logits of batch 1 is not finite"),
        (nothing_for_batch_1, "INVALID_REQUEST", "the output of batch 1 is not followed by its loss"),
        (ending_after_batch_0, "INVALID_REQUEST", "batch 1 asks for loss where its output is due"),
    ],
)
def test_replies_that_are_no_losses(shim, checkpoints, judge, reason, message):
    operation_id = judged(shim, work_on(shim, checkpoints, client=True), judge)
    failed = shim.watch(operation_id)[-1].failed
    assert (reason_of(failed), message in failed.message) == (reason, True), failed.message


def test_it_ends_while_a_loss_is_awaited(shim, checkpoints):
    asked = threading.Event()

    def never(_number, _answer):
        asked.set()
        threading.Event().wait(5)
        yield {}

    operation_id = judged(shim, work_on(shim, checkpoints, client=True), never)
    assert asked.wait(20)
    shim.cancel(operation_id)
    assert reason_of(shim.watch(operation_id)[-1].failed) == "CANCELLED"
