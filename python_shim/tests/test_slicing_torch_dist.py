"""Children that are cut from torch_dist folders, and such that are written as one."""

import json
import time
import zlib
from argparse import Namespace
from contextlib import ExitStack
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint
from dist_writer import archive, share, whole_box, write_folder
from safetensors.numpy import load_file
from slice_small import journaled
from test_torch_dist import grid

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing import blocks, pieces
from prunebridge_shim.slicing.cutting import Cutter
from prunebridge_shim.slicing.headers import build_header
from prunebridge_shim.slicing.parents import open_parents
from prunebridge_shim.slicing.request import (
    CommonEdit,
    OutputShard,
    SliceJob,
    TensorPart,
    TensorSlice,
    TorchDistSave,
)
from prunebridge_shim.slicing.run import slice_shards
from prunebridge_shim.slicing.torch_dist_pickle import Persistent
from prunebridge_shim.slicing.torch_dist_pickling import named, write_pickle
from prunebridge_shim.slicing.torch_dist_records import Box
from prunebridge_shim.slicing.torch_dist_save import lay_out_save

LAYERS, ROWS, COLUMNS = 3, 40, 60
SAVE = TorchDistSave("iter_0000003")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 512)
    monkeypatch.setattr(blocks, "SKIP_BYTES", 64)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1500)
    monkeypatch.setattr(pieces, "STRETCH_BYTES", 4000)


@pytest.fixture
def parent(tmp_path, rng):
    """A stacked matrix, cut over files by rows and by columns, and a norm; gives the folder and the arrays."""
    matrix = rng.standard_normal((LAYERS, ROWS, COLUMNS)).astype(np.float32)
    norm = rng.standard_normal(COLUMNS).astype(np.float32)
    tensors = [
        ("layers.w", "F32", matrix, grid(matrix.shape, [[1, 2], [13], [20, 40]])),
        ("norm", "F32", norm, whole_box(norm)),
    ]
    return write_folder(tmp_path / "parent", tensors, files=3), matrix, norm


def part(name, shape, axes, index=(), **more):
    return TensorPart(".metadata", name, "F32", shape, axes, (), index, **more)


def job_of(folder, target, save=SAVE, **options):
    """Layers 0 and 2 with some rows and columns, the norm with some columns, over two files."""
    sets = {"r": np.arange(1, ROWS, 3), "c": np.flatnonzero(np.arange(COLUMNS) % 5)}
    layers = [
        TensorSlice(
            "layers.w" if save else f"layers.{at}.w",
            (part("layers.w", (ROWS, COLUMNS), ("r", "c"), (index,)),),
            (at,) if save else (),
            (2,) if save else (),
        )
        for at, index in enumerate((0, 2))
    ]
    norm = TensorSlice("norm", (part("norm", (COLUMNS,), ("c",)),))
    ending = "distcp" if save else "safetensors"
    shards = [
        OutputShard(f"__0_{at}.{ending}", {}, tuple(held))
        for at, held in enumerate(([*layers, norm][:1], [*layers, norm][1:]))
    ]
    return SliceJob(folder, target, shards, sets, torch_dist=save, **options)


def expected_of(job, matrix, norm):
    rows, columns = job.sets["r"], job.sets["c"]
    return matrix[[0, 2]][:, rows][:, :, columns], norm[columns]


def loaded_from(folder, **shapes):
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    torch.distributed.checkpoint.load(state, checkpoint_id=folder, no_dist=True)
    return {name: tensor.numpy() for name, tensor in state.items()}


def test_a_folder_is_cut_into_safetensors(parent, tmp_path):
    folder, matrix, norm = parent
    job = job_of(folder, tmp_path / "job", None)
    slice_shards(job, lambda *_: None)
    found = {}
    for shard in job.shards:
        found |= load_file(tmp_path / "job" / "child" / shard.file)
    layers, kept_norm = expected_of(job, matrix, norm)
    np.testing.assert_array_equal(found["layers.0.w"], layers[0])
    np.testing.assert_array_equal(found["layers.1.w"], layers[1])
    np.testing.assert_array_equal(found["norm"], kept_norm)


def test_torch_loads_the_save_that_is_written(parent, tmp_path):
    folder, matrix, norm = parent
    job = job_of(folder, tmp_path / "job", TorchDistSave("iter_0000003", ("layers.w._extra_state/shard_0_2",)))
    outcome = slice_shards(job, lambda *_: None)
    child = tmp_path / "job" / "child" / "iter_0000003"
    layers, kept_norm = expected_of(job, matrix, norm)
    loaded = loaded_from(child, **{"layers.w": layers.shape, "norm": kept_norm.shape})
    np.testing.assert_array_equal(loaded["layers.w"], layers)
    np.testing.assert_array_equal(loaded["norm"], kept_norm)
    metadata = torch.distributed.checkpoint.FileSystemReader(child).read_metadata()
    assert type(metadata.state_dict_metadata["layers.w._extra_state/shard_0_2"]).__name__ == "BytesStorageMetadata"
    for shard in outcome.shards:
        raw = (child / shard.file).read_bytes()
        assert (shard.size, shard.crc32) == (len(raw), zlib.crc32(raw))
    assert torch.load(child / "common.pt", weights_only=True) == {"iteration": 3}
    assert json.loads((child / "metadata.json").read_text())["sharded_backend"] == "torch_dist"
    assert not [file for file in (tmp_path / "job").iterdir() if file.name.startswith(".")]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 3, 4])
def test_what_was_broken_off_goes_on_and_gives_the_same_bytes(parent, tmp_path, monkeypatch, after):
    folder = parent[0]
    slice_shards(job_of(folder, tmp_path / "whole"), lambda *_: None)
    left, real = iter(range(after)), Cutter.cut

    def breaking(self, piece, file):
        if next(left, None) is None:
            while not journaled(tmp_path / "job"):
                time.sleep(0.01)
            raise Killed
        return real(self, piece, file)

    with monkeypatch.context() as patch:
        patch.setattr(Cutter, "cut", breaking)
        with pytest.raises(Killed):
            slice_shards(job_of(folder, tmp_path / "job"), lambda *_: None)
    assert not list((tmp_path / "job" / "child").rglob(".metadata"))
    outcome = slice_shards(job_of(folder, tmp_path / "job"), lambda *_: None)
    assert outcome.found_bytes > 0
    found, whole = (
        {file.name: file.read_bytes() for file in (tmp_path / job / "child" / "iter_0000003").iterdir()}
        for job in ("job", "whole")
    )
    assert found == whole
    assert set(found) == {"__0_0.distcp", "__0_1.distcp", ".metadata", "common.pt", "metadata.json"}


@pytest.mark.parametrize("name", [".metadata", "__1_0.distcp", "common.pt"])
@pytest.mark.parametrize("how", ["written", "replaced"])
def test_notices_a_parent_that_changes(parent, tmp_path, name, how):
    folder = parent[0]
    changed = False

    def tick(done, total):
        nonlocal changed
        if not changed:
            changed = True
            path = folder / name
            if how == "written":
                with path.open("ab") as file:
                    file.write(b"x")
            else:
                copy = path.with_name("copy")
                copy.write_bytes(path.read_bytes())
                copy.replace(path)

    with pytest.raises(ShimError, match=name.replace(".", r"\.")) as error:
        slice_shards(job_of(folder, tmp_path / "job"), tick)
    assert error.value.reason is Reason.SOURCE_CHANGED
    assert not (tmp_path / "job").exists()


def change(job, at, **fields):
    """The job with other fields of one of its tensors."""
    shard = job.shards[0]
    tensors = list(shard.tensors)
    tensors[at] = TensorSlice(**{**vars(tensors[at]), **fields})
    return SliceJob(**{**vars(job), "shards": [OutputShard(shard.file, {}, tuple(tensors)), *job.shards[1:]]})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"index": (2,)}, r"layers\.w at \[2\] is .*no other part"),
        ({"index": (1,)}, r"layers\.w at \[1\] is .*no other part"),
        ({"outer_shape": (3,)}, r"layers\.w at \[1\] is .*no other part"),
        ({"name": "v"}, r"v is F32 \[2, 13, 48\], of which 1 parts were asked for"),
        ({"parts": (part("layers.w", (ROWS, COLUMNS), ("r", "c"), (3,)),)}, r"no part at \[3\]"),
        ({"parts": (part("other", (COLUMNS,), ("c",)),)}, "has no tensor other"),
        ({"parts": (part("norm", (3,), ("",)),)}, r"is F32 \[60\] where the request says F32 \[3\]"),
        ({"parts": (part("norm", (COLUMNS,), ("c",), shift=float("inf")),)}, "is to be shifted by inf"),
    ],
)
def test_refuses_what_makes_no_save_before_any_work(parent, tmp_path, fields, message):
    with pytest.raises(ShimError, match=message):
        slice_shards(change(job_of(parent[0], tmp_path / "job"), 0, **fields), lambda *_: None)
    assert not (tmp_path / "job").exists()


def test_refuses_a_folder_that_leads_out(parent, tmp_path):
    for name in ("..", "a/b", ""):
        with pytest.raises(ShimError, match="is no plain file name"):
            slice_shards(job_of(parent[0], tmp_path / "job", TorchDistSave(name)), lambda *_: None)


def test_edits_arguments_and_carries_all_else(parent, tmp_path):
    folder = parent[0]
    storage = Persistent(("storage", named("torch.FloatStorage"), "0", "cpu", 3))
    tensor = named("torch._utils._rebuild_tensor_v2")(storage, 0, (3,), (1,), False, named("collections.OrderedDict")())
    common = {
        "args": named("argparse.Namespace").holding(
            num_layers=3, hidden_size=60, params_dtype=named("torch.bfloat16"), names=["a", ("b", None)], lr=1e-3
        ),
        "optimizer": {"param_groups": [1]},
        "iteration": 3,
        "tensor": tensor,
        "seeds": named("__builtin__.set")([1, 2]),
    }
    stored = np.array([1, 2, 3], np.float32)
    (folder / "common.pt").write_bytes(archive(write_pickle(common), [stored.tobytes()]))
    edit = CommonEdit({"num_layers": 2, "hidden_size": 48, "unknown": 7}, ("optimizer",))
    slice_shards(job_of(folder, tmp_path / "job", TorchDistSave("w", (), edit)), lambda *_: None)
    with torch.serialization.safe_globals([Namespace, set]):
        found = torch.load(tmp_path / "job" / "child" / "w" / "common.pt", weights_only=False)
    assert found.pop("args") == Namespace(
        num_layers=2, hidden_size=48, params_dtype=torch.bfloat16, names=["a", ("b", None)], lr=1e-3
    )
    assert found.pop("tensor").tolist() == stored.tolist()
    assert found == {"iteration": 3, "seeds": {1, 2}}


def test_runs_nothing_of_a_hostile_common_pt(parent, tmp_path):
    folder = parent[0]
    ran = tmp_path / "ran"
    hostile = archive(write_pickle({"args": named("posix.system")(f"touch {ran}")}))
    (folder / "common.pt").write_bytes(hostile)
    with pytest.raises(ShimError, match=r"holds posix\.system") as error:
        slice_shards(job_of(folder, tmp_path / "job", TorchDistSave("w", (), CommonEdit({}, ()))), lambda *_: None)
    assert error.value.reason is Reason.BAD_CHECKPOINT
    # Where it is not edited, it is carried unread.
    slice_shards(job_of(folder, tmp_path / "job", TorchDistSave("w")), lambda *_: None)
    assert (tmp_path / "job" / "child" / "w" / "common.pt").read_bytes() == hostile
    assert not ran.exists()


@pytest.mark.parametrize("levels", [2, 60])
def test_what_is_shared_is_written_wherever_it_occurs_or_refused(parent, tmp_path, levels):
    folder = parent[0]
    (folder / "common.pt").write_bytes(archive(share(write_pickle({"shared": ["SHARED", "SHARED"]}), levels)))
    job = job_of(folder, tmp_path / "job", TorchDistSave("w", (), CommonEdit({}, ())))
    if levels > 2:
        with pytest.raises(ShimError, match="cannot be written again: they hold one another too many times"):
            slice_shards(job, lambda *_: None)
        return
    slice_shards(job, lambda *_: None)
    assert torch.load(tmp_path / "job" / "child" / "w" / "common.pt") == {"shared": [[[], []], [[], []]]}


def test_the_boxes_of_a_tensor_are_not_compared_with_one_another(tmp_path, monkeypatch):
    compared = 0

    def compare(*boxes):
        nonlocal compared
        compared += 1
        return equal(*boxes)

    equal = Box.__eq__
    monkeypatch.setattr(Box, "__eq__", compare)
    count = 400
    matrix = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    folder = write_folder(tmp_path / "parent", [("w", "F32", matrix, whole_box(matrix))])
    slices = tuple(TensorSlice("w", (part("w", (2,), ("",), (at,)),), (at,), (count,)) for at in range(count))
    shards = [OutputShard("__0_0.distcp", {}, slices)]
    with ExitStack() as stack:
        _, save = lay_out_save(shards, open_parents(folder, shards, stack), {}, ())
    assert len(save.tensors["w"].chunks) == count
    assert compared < count


FLOATS = {"F16": (10, -14, 65504), "BF16": (7, -126, 3.3895313892515355e38), "F32": (23, -126, 3.4028234663852886e38)}


def rounded(value, dtype):
    """The nearest number of a type, the even one of two, by exact arithmetic."""
    bits, least, largest = FLOATS[dtype]
    exponent = least
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    quantum = Fraction(2) ** (exponent - bits)
    nearest = round(value / quantum) * quantum  # Python rounds to even
    return float(nearest) if abs(nearest) <= largest else float("inf") * (1 if value > 0 else -1)


@pytest.mark.parametrize("dtype", [*FLOATS, "F64"])
@pytest.mark.parametrize("shift", [-1.0, 1.0, 2.0**-9 + 2.0**-30, 3e38])
def test_a_shift_is_rounded_once(tmp_path, rng, dtype, shift):
    width = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}[dtype]
    raw = rng.integers(0, 256, (700, width), dtype=np.uint8)
    torch_dtype = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}[dtype]
    near_one = torch.linspace(0.99, 1.01, 300, dtype=torch_dtype).view(torch.uint8).numpy().reshape(300, width)
    raw = np.concatenate([raw, near_one])
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(build_header({"x": (dtype, (1000,))}, {}) + raw.tobytes())
    tensor = TensorSlice("x", (TensorPart("a", "x", dtype, (1000,), ("",), (), (), shift),))
    slice_shards(SliceJob(source, tmp_path / "job", [OutputShard("b", {}, (tensor,))], {}), lambda *_: None)
    found = (tmp_path / "job" / "child" / "b").read_bytes()[-1000 * width :]
    values, results = (
        torch.frombuffer(bytearray(data), dtype=torch_dtype).double().tolist() for data in (raw.tobytes(), found)
    )
    for value, result in zip(values, results, strict=True):
        if not np.isfinite(value):
            assert np.isnan(result) if np.isnan(value) else result == value
        elif dtype == "F64":
            assert result == value + shift
        else:
            assert result == rounded(
                Fraction(value) + Fraction(shift) if abs(value) < 1e30 else Fraction(value + shift), dtype
            )


def test_whole_numbers_are_not_shifted(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(build_header({"x": ("I64", (1,))}, {}) + bytes(8))
    tensor = TensorSlice("x", (TensorPart("a", "x", "I64", (1,), ("",), (), (), 1.0),))
    with pytest.raises(ShimError, match=r"x is I64, and is to be shifted by 1\.0"):
        slice_shards(SliceJob(tmp_path / "source", tmp_path / "job", [OutputShard("b", {}, (tensor,))], {}), print)
