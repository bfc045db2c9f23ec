import os
import tracemalloc
from contextlib import ExitStack
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint
from dist_writer import DistWriter, archive, share, whole_box, write_folder
from saved_parents import PARENTS, needs_megatron, parent_of, save_parents, stored_as, weights_of

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing import blocks
from prunebridge_shim.slicing.blocks import BlockReader
from prunebridge_shim.slicing.kept import Region
from prunebridge_shim.slicing.torch_dist import TorchDistFolder
from prunebridge_shim.slicing.torch_dist_names import METADATA, STORAGE_INFO
from prunebridge_shim.slicing.torch_dist_pickle import Persistent
from prunebridge_shim.slicing.torch_dist_pickling import named
from prunebridge_shim.slicing.torch_dist_records import Box, DescribedTensor, tensor_pickle
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
    save_parents(out)
    return out


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def read_view(view, axes=None):
    shape = view.shape
    region = Region(0, shape, axes or (None,) * len(shape))
    item_bytes = ITEM_BITS[view.dtype] // 8
    return b"".join(bytes(block) for block in view.read(BlockReader(), region, item_bytes))


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
        assert read_view(view) == expected.tobytes(), tensor


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_loads_what_is_written(tmp_path, rng, dtype):
    raw = rng.integers(0, 2, (5, 6, ITEM_BITS[dtype] // 8), dtype=np.uint8)
    whole = raw.view(f"V{ITEM_BITS[dtype] // 8}")[..., 0]
    folder = write_folder(tmp_path / "save", [("w", dtype, whole, grid((5, 6), [[2], [1, 4]]))])
    loaded = {"w": torch.zeros(5, 6, dtype=DTYPES[dtype])}
    torch.distributed.checkpoint.load(loaded, checkpoint_id=folder, no_dist=True)
    assert loaded["w"].view(torch.uint8).numpy().tobytes() == whole.tobytes()
    assert torch.load(folder / "common.pt", weights_only=True) == {"iteration": 3}


def random_kept(rng, size):
    if rng.integers(3) == 0:
        return None
    return np.sort(rng.choice(size, rng.integers(1, size + 1), replace=False))


@pytest.mark.parametrize("block_bytes", [4, 64, 1 << 20])
def test_what_is_kept_comes_from_whatever_chunks_hold_it(tmp_path, rng, stack, monkeypatch, block_bytes):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    for trial in range(40):
        shape = tuple(rng.integers(1, 7, rng.integers(1, 5)).tolist())
        cuts = [sorted({*rng.integers(1, size + 1, 2).tolist()} - {size}) for size in shape]
        array = rng.integers(0, 1 << 16, shape).astype(np.uint16)
        files = int(rng.integers(1, 4))
        write_folder(tmp_path / str(trial), [("w", "U16", array, grid(shape, cuts))], files)
        folder = TorchDistFolder(tmp_path / str(trial), stack)
        for index in product(*(range(size) for size in shape[: rng.integers(0, len(shape) + 1)])):
            view = folder.view("w", index)
            assert view.shape == array[index].shape
            kept = tuple(random_kept(rng, size) for size in view.shape)
            expected = array[index]
            for axis, positions in enumerate(kept):
                expected = expected if positions is None else np.take(expected, positions, axis)
            assert read_view(view, kept) == expected.tobytes()
            # Parts that a large region is cut into, down to single elements.
            parts = Region(0, view.shape, kept).split(int(rng.integers(1, 9)))
            got = b"".join(bytes(block) for part in parts for block in view.read(BlockReader(), part, 2))
            assert got == expected.tobytes()


@pytest.mark.parametrize("cuts", [[[], [], [100]], [[], [100], []], [[1], [50], [100]]])
def test_chunks_that_end_within_large_rows_are_read_in_blocks(tmp_path, rng, stack, monkeypatch, cuts):
    block_bytes = 32 << 10
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    experts = rng.integers(0, 1 << 16, (3, 512, 1024)).astype(np.uint16)
    write_folder(tmp_path, [("w", "U16", experts, grid(experts.shape, cuts))])
    view = TorchDistFolder(tmp_path, stack).view("w")
    kept = (np.array([0, 2]), None, np.arange(0, 1024, 2))
    reader, region, at = BlockReader(), Region(0, experts.shape, kept), 0
    expected = experts[[0, 2]][:, :, ::2].tobytes()
    tracemalloc.start()
    for block in view.read(reader, region, 2):
        assert bytes(block) == expected[at : at + len(block)]
        at += len(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert at == len(expected)
    assert peak < 10 * block_bytes


def test_refuses_what_is_not_there(tmp_path, stack):
    whole = np.arange(6, dtype=np.uint8).reshape(2, 3)
    folder = TorchDistFolder(write_folder(tmp_path / "save", [("w", "U8", whole, grid((2, 3), [[], []]))]), stack)
    for key, index in (("v", ()), ("w", (2,)), ("w", (0, 0, 0))):
        with pytest.raises(ShimError, match=r"has no tensor v|no part at") as error:
            folder.view(key, index)
        assert error.value.reason is Reason.BAD_TENSOR


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
    writer = DistWriter(tmp_path)
    for box in boxes:
        writer.add("w", "U8", (2, 3), box, bytes(box.sizes[0] * box.sizes[1]))
    writer.finish({})
    with pytest.raises(ShimError, match="chunks of w that do not fill its shape") as error:
        TorchDistFolder(tmp_path, stack).view("w")
    assert error.value.reason is Reason.BAD_CHECKPOINT


@pytest.mark.parametrize("shape", [(2, 0), (2, 1 << 40)])
def test_refuses_chunks_that_their_archives_do_not_hold(tmp_path, stack, shape):
    writer = DistWriter(tmp_path)
    writer.add("w", "U8", (2, 3), Box((0, 0), (2, 3)), bytes(6))
    writer.save.tensors["w"] = DescribedTensor("U8", shape, {Box((0, 0), shape): None})
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
            try:
                with ExitStack() as stack:
                    file.flush()
                    out = np.frombuffer(read_view(TorchDistFolder(folder, stack).view("w")), np.uint8)
                    assert (out.reshape(4, 4) != array).sum() <= 1
            except ShimError:
                refused += 1
            file.seek(at)
            file.write(raw[at : at + 1])
    assert refused > 250


def test_reads_narrow_and_wide_archives_of_others(tmp_path, stack, monkeypatch):
    """What torch.save and Python write, whose sizes are in narrow fields unless they are large."""
    array = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for limit in (10, 1 << 31):
        monkeypatch.setattr("zipfile.ZIP64_LIMIT", limit)
        raw = archive(tensor_pickle("U8", (8, 8)), [array.tobytes()])
        assert (b"PK\x06\x06" in raw) == (limit == 10)
        writer = DistWriter(tmp_path / str(limit))
        writer.add_archive("w", "U8", (8, 8), *whole_box(array), raw)
        assert read_view(TorchDistFolder(writer.finish({}), stack).view("w")) == array.tobytes()


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"fqn": "SHARED", "offset": named("torch.Size")(())}, "which are no texts"),
        ({"fqn": "w", "offset": named("torch.Size")(("SHARED",))}, "where whole numbers belong"),
        ({"fqn": "w", "offset": Persistent("SHARED")}, "where whole numbers belong"),
    ],
    ids=["name", "size", "storage"],
)
def test_what_is_shared_makes_no_long_message(tmp_path, stack, held, said):
    writer = DistWriter(tmp_path)
    index = named(f"{METADATA}.MetadataIndex").holding(**held)
    writer.save._places[index] = named(STORAGE_INFO).holding(relative_path="__0_0.distcp", offset=0, length=1)
    writer.finish({})
    (tmp_path / ".metadata").write_bytes(share((tmp_path / ".metadata").read_bytes()))
    with pytest.raises(ShimError, match=said) as error:
        TorchDistFolder(tmp_path, stack)
    assert len(error.value.message) < 20_000


def test_tensors_are_named_by_text(tmp_path, stack):
    writer = DistWriter(tmp_path)
    writer.save.tensors[7] = DescribedTensor("U8", ())
    writer.finish({})
    with pytest.raises(ShimError, match="names a tensor by something other than text"):
        TorchDistFolder(tmp_path, stack)


def test_says_where_a_file_ends_too_soon(tmp_path, stack):
    folder = write_folder(tmp_path / "save", [("w", "U8", np.ones((64, 64), np.uint8), grid((64, 64), [[], []]))])
    os.truncate(folder / "__0_0.distcp", 2000)
    with pytest.raises(ShimError, match=r"w at byte 0 of .*__0_0\.distcp .*, but the file has 2000 bytes"):
        TorchDistFolder(folder, stack).view("w")
