"""Python functions by name: which of them are called, and what becomes of what they do."""

import random
import sys

import numpy as np
import pytest
import torch
import user_functions
from client import reason_of
from test_work import hook, open_model
from tiny import as_feed, build, no_tick

from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.collect.run import collect
from prunebridge_shim.entry_points import EntryPoints, allowed_name
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import work_pb2
from prunebridge_shim.models.arguments import bind_arguments
from prunebridge_shim.models.checkpoint import load_model
from prunebridge_shim.rpc.python_work import collect_by_python, score_by_python

HERE = EntryPoints(["user_functions"])
POINTS = [
    HookPoint("ffn", "model.layers.1.mlp.down_proj", "mean_abs_square_in"),
    HookPoint("layer", "model.layers.1", "cosine_distance"),
]


@pytest.fixture
def model():
    return build("llama").eval().requires_grad_(False)


def work_of(*, loop=None, loader=None, collect_func="", most=0):
    if loop:
        return work_pb2.Collect(forward_loop=f"user_functions:{loop}")
    collect_func = collect_func and f"user_functions:{collect_func}"
    loader = f"user_functions:{loader}"
    return work_pb2.Collect(data=work_pb2.PythonData(data_loader=loader, collect_func=collect_func, max_batches=most))


def measured(model, **work):
    return collect_by_python(model, POINTS, work_of(**work), HERE, no_tick)


def refused(call, reason):
    with pytest.raises(ShimError) as caught:
        call()
    assert caught.value.reason is reason
    return caught.value.message


@pytest.mark.parametrize(
    "work",
    [
        {"loop": "forward_loop"},
        {"loader": "loader"},
        {"loader": "loader", "collect_func": "as_dict"},
        {"loader": "loader", "collect_func": "as_tuple"},
    ],
    ids=str,
)
def test_every_way_measures_what_a_feed_measures(model, work):
    fed = collect(model, POINTS, as_feed([ids.numpy() for ids in user_functions.batches()]), no_tick)
    done = measured(model, **work)
    assert (done.batches, done.samples, done.tokens) == (fed.batches, fed.samples, fed.tokens) == (3, 6, 54)
    assert done.forward_seconds > 0
    for key, sums in fed.sums.items():
        assert np.array_equal(done.sums[key].array, sums.array)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_no_more_batches_are_drawn_than_asked_for(model, monkeypatch, tmp_path):
    monkeypatch.setenv("DRAWN_FILE", str(tmp_path / "drawn"))
    assert measured(model, loader="endless_loader", most=2).batches == 2
    assert (tmp_path / "drawn").read_text() == "2"


def test_progress_tells_how_many_there_will_be(model):
    totals = set()
    for most in (0, 2, 9):
        work = work_of(loader="loader", most=most)
        collect_by_python(model, POINTS, work, HERE, lambda _done, total: totals.add(total))
    assert totals == {3, 2}


def test_a_loop_that_runs_nothing(model):
    assert "before its first batch" in refused(lambda: measured(model, loop="idle"), Reason.BAD_DATA)


def test_the_model_and_the_random_states_come_back(model):
    model.model.layers[1].train()
    torch.manual_seed(5)
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    measured(model, loop="misbehave")
    assert [module.training for module in model.model.layers] == [False, True, False]
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (
            {"loop": "fail"},
            r"user_functions:fail failed: JSONDecodeError: .* \(.*user_functions.py, line \d+, in fail\)",
        ),
        ({"loop": "leave"}, r"SystemExit: 3"),
        (
            {"loader": "broken_loader"},
            r"broken_loader failed: OSError: the dataset server is down .* in broken_loader\)",
        ),
        ({"loader": "batches", "collect_func": "as_mismatched"}, r"user_functions:as_mismatched failed"),
        ({"loader": "VERSION"}, r"user_functions:VERSION is no function but of type int"),
        ({"loop": "forwardloop"}, r"there is no user_functions:forwardloop"),
    ],
    ids=str,
)
def test_what_a_function_raises_is_its_own_fault(model, work, says):
    with pytest.raises(ShimError, match=says) as caught:
        measured(model, **work)
    assert caught.value.reason is Reason.PYTHON_FAILED


@pytest.mark.parametrize(
    ("collect_func", "says"),
    [("as_strange", "token_type_ids, which the model's forward does not take"), ("as_unknown_tokens", "token id 1")],
)
def test_batches_that_do_not_fit(model, collect_func, says):
    work = {"loader": "loader", "collect_func": collect_func}
    assert says in refused(lambda: measured(model, **work), Reason.BAD_DATA)


def test_a_module_that_cannot_be_imported(model):
    work = work_pb2.Collect(forward_loop="user_broken:loop")
    entry_points = EntryPoints(["user_broken"])
    message = refused(lambda: collect_by_python(model, POINTS, work, entry_points, no_tick), Reason.PYTHON_FAILED)
    assert "No module named 'a_package_that_is_not_there'" in message
    assert "user_broken.py, line 3" in message


def test_nothing_is_imported_that_was_not_allowed():
    entry_points = EntryPoints(["user_imports:score"])
    for name in ("user_imports:other", "user_imports:score.real", "os:system", "user_functions:score"):
        assert f"{name} is not allowed" in refused(lambda name=name: entry_points.find(name), Reason.PYTHON_DENIED)
    assert "user_imports" not in sys.modules
    assert entry_points.find("user_imports:score")(None) == 1.0


@pytest.mark.parametrize(
    ("path", "home"),
    [
        ("os.system", ", which has it from os"),
        ("run", ", which has it from subprocess"),
        ("Linear", ", which has it from torch.nn.modules.linear"),
        ("Path.cwd", ", which has it from pathlib"),
        ("score.__globals__.update", ""),
    ],
)
def test_an_allowed_module_is_no_way_into_others(path, home):
    name = f"user_functions:{path}"
    message = refused(lambda: HERE.find(name), Reason.PYTHON_DENIED)
    assert message.startswith(f"the Python function {name} is not allowed: it is not user_functions's own{home}")
    assert callable(EntryPoints([name]).find(name))


@pytest.mark.parametrize("path", ["score", "without_gradients", "Judge", "Judge.score"])
def test_what_a_module_defines_is_allowed_with_it(path):
    assert callable(HERE.find(f"user_functions:{path}"))


@pytest.mark.parametrize("name", ["user_functions", "a b:c", "a:b:c", ":f", "a:", "a..b:c", "../x:y"])
def test_what_is_no_name(name):
    refused(lambda: HERE.find(name), Reason.INVALID_REQUEST)


def test_what_cannot_be_allowed():
    assert allowed_name("a.b:c.d") == "a.b:c.d"
    with pytest.raises(ValueError, match="neither"):
        allowed_name("a/b")
    with pytest.raises(ValueError, match="is no folder"):
        allowed_name("./a_folder_that_is_not_there")


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder of a module that nothing else is named as, a package, and one that the standard library has."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    (tmp_path / "user_package/inner").mkdir(parents=True)
    (tmp_path / "user_alone.py").write_text("from subprocess import run\ndef build(): return 1\n")
    (tmp_path / "user_package/__init__.py").write_text("from user_package.inner.deep import build\n")
    (tmp_path / "user_package/inner/deep.py").write_text("def build(): return 2\n")
    (tmp_path / "json.py").write_text("def dumps(value): return value\n")
    return tmp_path


def test_modules_of_a_folder_are_allowed(modules):
    allowed = EntryPoints([allowed_name(str(modules))])
    assert allowed.find("user_alone:build")() == 1
    assert allowed.find("user_package:build")() == 2  # which it has from another one of the folder
    assert allowed.find("user_package.inner.deep:build")() == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("user_alone:run", "has it from subprocess"),
        ("json:dumps", "brings another than the folder's"),
        ("user_functions:score", "is not allowed"),
        ("__main__:run", "is not allowed"),
    ],
)
def test_what_lies_outside_of_a_folder_is_not(modules, name, says):
    allowed = EntryPoints([str(modules)])
    assert says in refused(lambda: allowed.find(name), Reason.PYTHON_DENIED)


def test_a_package_folder_is_that_package_alone(modules):
    allowed = EntryPoints([str(modules / "user_package")])
    assert allowed.find("user_package.inner.deep:build")() == 2
    refused(lambda: allowed.find("user_alone:build"), Reason.PYTHON_DENIED)


def test_a_dict_is_named_a_tuple_positional_and_a_trailing_empty_dict_ends_it(model):
    ids = torch.zeros(1, 2, dtype=torch.int64)
    assert list(bind_arguments(model, ids, 0)) == ["input_ids"]
    assert list(bind_arguments(model, (ids, ids), 0)) == ["input_ids", "attention_mask"]
    assert list(bind_arguments(model, (ids, {"labels": ids}), 0)) == ["input_ids", "labels"]
    given = bind_arguments(model, (ids, {"labels": ids}, {}), 0)
    assert given["attention_mask"] == {"labels": ids}
    refused(lambda: bind_arguments(model, (ids, {"input_ids": ids}), 0), Reason.BAD_DATA)


def test_a_score_is_a_finite_number(model):
    def score(function):
        return score_by_python(model, f"user_functions:{function}", HERE, no_tick)

    assert score("score") == pytest.approx(float(user_functions.score(model)))
    for function, says in [("score_nan", "gave nan"), ("score_text", "gave '0.5'"), ("score_nothing", "TypeError")]:
        assert says in refused(lambda function=function: score(function), Reason.PYTHON_FAILED)


def test_a_loop_that_swallows_its_cancellation_is_cancelled(model, monkeypatch, tmp_path):
    monkeypatch.setenv("GO_ON_FILE", str(tmp_path / "go on"))
    (tmp_path / "go on").touch()

    def tick(done, _total):
        if done == 2:
            (tmp_path / "go on").unlink(missing_ok=True)
            raise ShimError(Reason.CANCELLED, "cancelled")

    work = work_of(loop="stubborn")
    refused(lambda: collect_by_python(model, POINTS, work, HERE, tick), Reason.CANCELLED)


def test_over_the_wire(shim, checkpoints):
    model_id = open_model(shim, checkpoints("llama")).model_id
    hooks = [hook("layer", "model.layers.1", "COSINE_DISTANCE")]
    work = work_pb2.Collect(model_id=model_id, hooks=hooks, forward_loop="user_functions:forward_loop")
    last, sums = shim.run(collect=work)
    assert last.succeeded.collected.batches == 3
    work = work_pb2.Collect(model_id=model_id, hooks=hooks, data=work_of(loader="loader").data)
    assert np.array_equal(shim.run(collect=work)[1]["layer"], sums["layer"])
    last, _ = shim.run(score_model=work_pb2.ScoreModel(model_id=model_id, score_func="user_functions:score"))
    with torch.no_grad():
        expected = user_functions.score(load_model(str(checkpoints("llama")), torch.device("cpu"), "auto"))
    assert last.succeeded.model_scored.score == pytest.approx(float(expected))
    for name, reason in [("os:system", "PYTHON_DENIED"), ("user_functions:score_nan", "PYTHON_FAILED")]:
        last, _ = shim.run(score_model=work_pb2.ScoreModel(model_id=model_id, score_func=name))
        assert reason_of(last.failed) == reason
