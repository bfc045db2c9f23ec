import os
from contextlib import ExitStack
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint
from megatron import PARENTS, needs_megatron, parent_of, run_megatron, stored_as, weights_of

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.torch_dist import TorchDistFolder
from prunebridge_shim.slicing.torch_dist_pickling import Name
from prunebridge_shim.slicing.torch_dist_records import Box, DescribedTensor
from prunebridge_shim.slicing.torch_dist_writer import TorchDistWriter, write_tracker
from prunebridge_shim.tensors import ITEM_BITS

DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F64": torch.float64,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16,
}


@pytest.fixture(scope="module")
def saves(tmp_path_factory):
    out = tmp_path_factory.mktemp("megatron")
    run_megatron("save", out)
    return out


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def read_view(view, stretch):
    out = np.empty(view.shape[0] * view.row_bytes, np.uint8)
    for first in range(0, view.shape[0], stretch):
        count = min(stretch, view.shape[0] - first)
        view.read_rows(first, count, out[first * view.row_bytes :][: count * view.row_bytes])
    return out.tobytes()


def write_folder(folder, tensors):
    """Writes a save of (key, dtype, whole array, boxes)."""
    folder.mkdir(parents=True)
    with TorchDistWriter(folder) as writer:
        for key, dtype, array, boxes in tensors:
            for box in boxes:
                part = array[tuple(slice(at, at + size) for at, size in zip(box.offsets, box.sizes, strict=True))]
                raw = np.frombuffer(part.tobytes(), np.uint8)
                writer.add(key, dtype, array.shape, box, np.array_split(raw, 3))
        writer.finish({"iteration": 3})
    return folder


def grid(shape, cuts):
    """The boxes between cuts of each axis."""
    spans = [list(pairwise([0, *at, size])) for at, size in zip(cuts, shape, strict=True)]
    return [Box(tuple(a for a, _ in box), tuple(b - a for a, b in box)) for box in product(*spans)]


@needs_megatron
@pytest.mark.parametrize("name", PARENTS)
def test_reads_what_megatron_saved_bit_for_bit(saves, stack, name):
    folder = TorchDistFolder(weights_of(saves, name), stack)
    prefix = "module." if name == "nemo" else ""
    for tensor, expected in parent_of(name).items():
        key, index = stored_as(tensor, numbered=name == "mixtral-numbered", prefix=prefix)
        view = folder.view(key, index)
        assert (view.dtype, view.shape) == ("F32", expected.shape)
        assert read_view(view, 7) == expected.tobytes(), tensor


@needs_megatron
def test_megatron_loads_what_is_written(saves, stack, tmp_path):
    for name, parent, sizes in (("llama", "llama-gqa", (4,)), ("mixtral", "mixtral-small", (2, 4))):
        states = TorchDistFolder(weights_of(saves, name), stack).metadata.states
        folder = tmp_path / parent / "iter_0000003"
        folder.mkdir(parents=True)
        with TorchDistWriter(folder) as writer:
            for tensor, array in parent_of(name).items():
                key, index = stored_as(tensor)
                lead = sizes[: len(index)]
                box = Box((*index, *[0] * array.ndim), (*[1] * len(index), *array.shape))
                writer.add(key, "F32", (*lead, *array.shape), box, [np.frombuffer(array.tobytes(), np.uint8)])
            for state in states:
                writer.add_empty_state(state)
            args = Name("argparse", "Namespace").holding(num_layers=sizes[0])
            writer.finish({"iteration": 3, "checkpoint_version": 3.0, "args": args})
        write_tracker(folder.parent, 3)
    assert run_megatron("load", tmp_path) == {"llama-gqa": [], "mixtral-small": []}


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_loads_what_is_written(tmp_path, rng, dtype):
    raw = rng.integers(0, 2, (5, 6, ITEM_BITS[dtype] // 8), dtype=np.uint8)
    whole = raw.view(f"V{ITEM_BITS[dtype] // 8}")[..., 0]
    folder = write_folder(tmp_path / "save", [("w", dtype, whole, grid((5, 6), [[2], [1, 4]]))])
    loaded = {"w": torch.zeros(5, 6, dtype=DTYPES[dtype])}
    torch.distributed.checkpoint.load(loaded, checkpoint_id=folder, no_dist=True)
    assert loaded["w"].view(torch.uint8).numpy().tobytes() == whole.tobytes()
    assert torch.load(folder / "common.pt", weights_only=True) == {"iteration": 3}


def test_rows_come_from_whatever_chunks_hold_them(tmp_path, rng, stack):
    for trial in range(20):
        shape = tuple(rng.integers(1, 7, rng.integers(1, 5)).tolist())
        cuts = [sorted({*rng.integers(1, size + 1, 2).tolist()} - {size}) for size in shape]
        array = rng.integers(0, 1 << 16, shape).astype(np.uint16)
        folder = TorchDistFolder(write_folder(tmp_path / str(trial), [("w", "U16", array, grid(shape, cuts))]), stack)
        for index in product(*(range(size) for size in shape[: rng.integers(0, len(shape))])):
            view = folder.view("w", index)
            assert view.shape == array[index].shape
            first = int(rng.integers(0, view.shape[0]))
            count = int(rng.integers(0, view.shape[0] - first + 1))
            out = np.empty(count * view.row_bytes, np.uint8)
            view.read_rows(first, count, out)
            assert out.tobytes() == array[index][first : first + count].tobytes()
            raw = array[index].tobytes()
            begin, end = sorted(rng.integers(0, len(raw) + 1, 2).tolist())
            span = np.empty(end - begin, np.uint8)
            view.read_span(begin, span)
            assert span.tobytes() == raw[begin:end]


def test_refuses_what_is_not_there(tmp_path, stack):
    whole = np.arange(6, dtype=np.uint8).reshape(2, 3)
    folder = TorchDistFolder(write_folder(tmp_path / "save", [("w", "U8", whole, grid((2, 3), [[], []]))]), stack)
    for key, index in (("v", ()), ("w", (2,)), ("w", (0, 0))):
        with pytest.raises(ShimError, match=r"has no tensor v|no part at") as error:
            folder.view(key, index)
        assert error.value.reason is Reason.BAD_TENSOR
    for first, count, size in ((1, 2, 6), (-1, 1, 3), (0, 1, 2)):
        with pytest.raises(ShimError, match="has 2 rows of 3 bytes"):
            folder.view("w").read_rows(first, count, np.empty(size, np.uint8))


@pytest.mark.parametrize(
    "boxes",
    [
        [Box((0, 0), (1, 3))],
        [Box((0, 0), (2, 3)), Box((1, 0), (1, 3))],
        [Box((0, 0), (2, 2)), Box((0, 2), (1, 1))],
        [Box((1, 0), (1, 3))],
        [Box((0, 0), (2, 4))],
    ],
)
def test_refuses_chunks_that_do_not_fill_a_tensor_once(tmp_path, stack, boxes):
    with TorchDistWriter(tmp_path) as writer:
        for box in boxes:
            writer.add("w", "U8", (2, 3), box, [np.zeros(box.sizes[0] * box.sizes[1], np.uint8)])
        writer.finish({})
    with pytest.raises(ShimError, match="chunks of w that do not fill its shape") as error:
        TorchDistFolder(tmp_path, stack).view("w")
    assert error.value.reason is Reason.BAD_CHECKPOINT


@pytest.mark.parametrize("shape", [(2, 0), (2, 1 << 40)])
def test_refuses_chunks_that_their_archives_do_not_hold(tmp_path, stack, shape):
    with TorchDistWriter(tmp_path) as writer:
        writer.add("w", "U8", (2, 3), Box((0, 0), (2, 3)), [np.zeros(6, np.uint8)])
        writer._tensors["w"] = DescribedTensor("U8", shape, [Box((0, 0), shape)])
        writer.finish({})
    with pytest.raises(ShimError, match="bytes, which its archive does not hold"):
        TorchDistFolder(tmp_path, stack).view("w")


def test_a_changed_byte_changes_at_most_its_element(tmp_path, rng):
    """Whatever else a byte of an archive says, what is read is what was stored, or nothing."""
    array = rng.integers(1, 255, (4, 4), dtype=np.uint8)
    folder = write_folder(tmp_path / "save", [("w", "U8", array, grid((4, 4), [[], []]))])
    raw = (folder / "__0_0.distcp").read_bytes()
    refused = 0
    for at in range(len(raw)):
        with (folder / "__0_0.distcp").open("r+b") as file:
            file.seek(at)
            file.write(bytes([raw[at] ^ 0xFF]))
            out = np.zeros(16, np.uint8)
            try:
                with ExitStack() as stack:
                    file.flush()
                    TorchDistFolder(folder, stack).view("w").read_rows(0, 4, out)
                    assert (out.reshape(4, 4) != array).sum() <= 1
            except ShimError:
                refused += 1
            file.seek(at)
            file.write(raw[at : at + 1])
    assert refused > 250


def test_reads_the_wide_fields_of_large_archives(tmp_path, stack, monkeypatch):
    monkeypatch.setattr("zipfile.ZIP64_LIMIT", 10)
    array = np.arange(64, dtype=np.uint8).reshape(8, 8)
    folder = write_folder(tmp_path / "save", [("w", "U8", array, grid((8, 8), [[4], []]))])
    assert b"PK\x06\x06" in (folder / "__0_0.distcp").read_bytes()
    assert read_view(TorchDistFolder(folder, stack).view("w"), 3) == array.tobytes()
    assert torch.load(folder / "common.pt", weights_only=True) == {"iteration": 3}


def test_says_where_a_file_ends_too_soon(tmp_path, stack):
    folder = write_folder(tmp_path / "save", [("w", "U8", np.ones((64, 64), np.uint8), grid((64, 64), [[], []]))])
    os.truncate(folder / "__0_0.distcp", 2000)
    with pytest.raises(ShimError, match=r"w at byte 0 of .*__0_0\.distcp .*, but the file has 2000 bytes"):
        TorchDistFolder(folder, stack).view("w").read_rows(0, 64, np.empty(4096, np.uint8))


def test_writes_no_save_over_another(tmp_path):
    folder = write_folder(tmp_path / "save", [])
    with pytest.raises(FileExistsError):
        TorchDistWriter(folder)
