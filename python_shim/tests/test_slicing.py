import json
import os
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from parts import cut_of
from safetensors.numpy import load_file, save_file

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing import blocks, gathering, pieces
from prunebridge_shim.slicing.headers import build_header
from prunebridge_shim.slicing.kept import Region
from prunebridge_shim.slicing.opened import OpenFolder
from prunebridge_shim.slicing.request import OutputShard, SliceJob, TensorPart, TensorSlice, index_sets_of
from prunebridge_shim.slicing.run import slice_shards
from prunebridge_shim.slicing.shard import ShardFile, join_crc32
from prunebridge_shim.tensors import ITEM_BITS, HostTensor, is_packed

WHOLE_BYTES = [dtype for dtype in ITEM_BITS if not is_packed(dtype)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few rows and pieces of a few blocks, so that small tensors take every path."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(blocks, "SKIP_BYTES", 512)
    monkeypatch.setattr(gathering, "RUN_BYTES", 12)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3000)
    monkeypatch.setattr(pieces, "STRETCH_BYTES", 9000)


@pytest.fixture(params=["numpy", "compiled"])
def gathered(request, monkeypatch):
    """Gathers by one of the two ways that there are, whether the kernel was built or not."""
    kernel = request.getfixturevalue("kernel") if request.param == "compiled" else None
    monkeypatch.setattr(gathering, "load", lambda: kernel)


@pytest.fixture
def folders(tmp_path):
    """The parent's folder, and one for the job that is not made yet."""
    source = tmp_path / "source"
    source.mkdir()
    return source, tmp_path / "job"


def write_raw(path, tensors, metadata=None):
    """Writes tensors given as (dtype, shape, bytes)."""
    header = build_header({name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()}, metadata or {})
    path.write_bytes(header + b"".join(data for _, _, data in tensors.values()))


def read_raw(path):
    """A file's header as an object, and each tensor's bytes."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    header = json.loads(raw[8 : 8 + length])
    data = raw[8 + length :]
    return header, {n: data[slice(*e["data_offsets"])] for n, e in header.items() if n != "__metadata__"}


def cut(folders, tensors, sets=None, tick=lambda *_: None, file="out.safetensors"):
    job = SliceJob(*folders, [OutputShard(file, {"format": "pt"}, tuple(tensors))], sets or {})
    return slice_shards(job, tick).shards


def whole(name, dtype, shape, file="in.safetensors"):
    return cut_of(name, file, name, dtype, tuple(shape), ("",) * len(shape))


def random_kept(rng, size):
    """All, scattered, or runs: what heads, channels, layers and experts look like."""
    kind = rng.integers(4)
    if kind == 0 or size == 0:
        return None
    if kind == 1:
        return np.sort(rng.choice(size, rng.integers(1, size + 1), replace=False))
    run = int(rng.choice([d for d in range(1, size + 1) if size % d == 0]))
    groups = np.sort(rng.choice(size // run, rng.integers(1, size // run + 1), replace=False))
    return (groups[:, None] * run + np.arange(run)).ravel()


@pytest.mark.usefixtures("gathered")
@pytest.mark.parametrize("seed", range(60))
def test_any_axes_of_any_type_match_numpy(folders, seed):
    rng = np.random.default_rng(seed)
    stored, slices, sets, expected = {}, [], {}, {}
    for index in range(4):
        dtype = str(rng.choice(WHOLE_BYTES))
        shape = tuple(int(size) for size in rng.integers(1, 40, rng.integers(0, 4)))
        items = rng.integers(0, 256, (*shape, ITEM_BITS[dtype] // 8), dtype=np.uint8)
        stored[f"t{index}"] = (dtype, shape, items.tobytes())
        axes = []
        for axis, size in enumerate(shape):
            kept = random_kept(rng, size)
            axes.append("" if kept is None else f"{index}.{axis}")
            if kept is not None:
                sets[axes[-1]] = kept
                items = np.take(items, kept, axis)
        slices.append(cut_of(f"out{index}", "in.safetensors", f"t{index}", dtype, shape, tuple(axes)))
        expected[f"out{index}"] = (dtype, list(items.shape[:-1]), items.tobytes())
    write_raw(folders[0] / "in.safetensors", stored)
    (written,) = cut(folders, slices, sets)
    out = folders[1] / "child" / "out.safetensors"
    header, data = read_raw(out)
    assert header.pop("__metadata__") == {"format": "pt"}
    assert {n: (e["dtype"], e["shape"], data[n]) for n, e in header.items()} == expected
    assert (written.size, written.crc32) == (out.stat().st_size, zlib.crc32(out.read_bytes()))


BLOCK_SHAPES = [(6, 8, 5), (5, 7), (4, 3, 2, 6), (9,), (3, 200, 37), (2, 9000), (1, 4, 4)]


@pytest.mark.usefixtures("gathered")
@pytest.mark.parametrize("dtype", WHOLE_BYTES)
@pytest.mark.parametrize("shape", BLOCK_SHAPES, ids=str)
@pytest.mark.parametrize("first_is_whole", [True, False])
def test_blocks_that_keep_other_positions_match_numpy(folders, rng, dtype, shape, first_is_whole):
    items = rng.integers(0, 256, (*shape, ITEM_BITS[dtype] // 8), dtype=np.uint8)
    write_raw(folders[0] / "in.safetensors", {"before": ("U8", (3,), b"abc"), "x": (dtype, shape, items.tobytes())})
    first = np.arange(shape[0]) if first_is_whole else np.arange(0, shape[0], 2)
    sets = {"e": first}
    counts = [int(rng.integers(1, size + 1)) for size in shape[1:]]
    blocks, expected = [], []
    for position in first:
        block, names = items[position], []
        for axis, (size, count) in enumerate(zip(shape[1:], counts, strict=True)):
            name = f"{position}.{axis}" if count < size else ""
            sets[name or "whole"] = kept = np.sort(rng.choice(size, count, replace=False))
            block = np.take(block, kept, axis)
            names.append(name)
        blocks.append(tuple(names))
        expected.append(block)
    axes = ("" if first_is_whole else "e",)
    (written,) = cut(
        folders,
        [cut_of("x", "in.safetensors", "x", dtype, shape, axes, tuple(blocks)), whole("before", "U8", (3,))],
        sets,
    )
    out = folders[1] / "child" / "out.safetensors"
    header, data = read_raw(out)
    assert header["x"]["shape"] == [len(first), *counts]
    assert data["x"] == np.stack(expected).tobytes()
    assert data["before"] == b"abc"
    assert (written.size, written.crc32) == (out.stat().st_size, zlib.crc32(out.read_bytes()))


def test_the_reference_library_reads_what_is_written(folders, rng):
    parent = {"w": rng.standard_normal((30, 20)).astype(np.float32), "b": rng.standard_normal(30).astype(np.float16)}
    save_file(parent, folders[0] / "in.safetensors")
    kept = np.array([0, 3, 4, 5, 29])
    slices = [
        cut_of("w2", "in.safetensors", "w", "F32", (30, 20), ("k", "")),
        cut_of("b2", "in.safetensors", "b", "F16", (30,), ("k",)),
    ]
    cut(folders, slices, {"k": kept})
    child = load_file(folders[1] / "child" / "out.safetensors")
    assert np.array_equal(child["w2"], parent["w"][kept])
    assert np.array_equal(child["b2"], parent["b"][kept])


def test_payloads_of_nan_survive(folders):
    bits = np.array([0x7F800001, 0xFFC0DEAD, 0x7FFFFFFF, 0x80000000], np.uint32)
    write_raw(folders[0] / "in.safetensors", {"x": ("F32", (4,), bits.tobytes())})
    cut(folders, [cut_of("x", "in.safetensors", "x", "F32", (4,), ("k",))], {"k": np.array([0, 1, 3])})
    assert read_raw(folders[1] / "child" / "out.safetensors")[1]["x"] == bits[[0, 1, 3]].tobytes()


def test_long_dropped_stretches_are_not_read(folders, monkeypatch, rng):
    rows = rng.integers(0, 256, (100, 256), dtype=np.uint8)
    write_raw(folders[0] / "in.safetensors", {"x": ("U8", rows.shape, rows.tobytes())})
    read = 0
    real = os.preadv

    def counted(fd, buffers, offset):
        nonlocal read
        count = real(fd, buffers, offset)
        read += count
        return count

    monkeypatch.setattr(os, "preadv", counted)
    kept = np.array([0, 1, 50, 99])
    cut(folders, [cut_of("x", "in.safetensors", "x", "U8", rows.shape, ("k", ""))], {"k": kept})
    assert read == 4 * 256
    assert read_raw(folders[1] / "child" / "out.safetensors")[1]["x"] == rows[kept].tobytes()


@pytest.mark.usefixtures("gathered")
def test_memory_is_a_few_blocks(monkeypatch, folders):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 16)
    size = 1 << 22
    write_raw(folders[0] / "in.safetensors", {"x": ("U8", (2, size), bytes(2 * size))})
    reader = blocks.BlockReader()
    with (folders[0] / "in.safetensors").open("rb") as file:
        region = Region(0, (2, size), (np.array([1]), np.arange(0, size, 2)))
        assert sum(block.size for block in reader.read(file.fileno(), 8, region, 1)) == size // 2
    assert sum(buffer.size for buffer in reader._buffers.values()) <= 3 << 16


def header_of(raw):
    text = json.dumps(raw).encode() if not isinstance(raw, bytes) else raw
    return len(text).to_bytes(8, "little") + text


def entry(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x01\x02", "ends at byte 2"),
        (b"\xff" * 8 + b"{}", "declares a header of 18446744073709551615 bytes"),
        (bytes(8) + b"{}", "cannot be read"),
        ((200_000_000).to_bytes(8, "little") + b"{}", "declares a header of 200000000 bytes"),
        (header_of(b"{nonsense"), "cannot be read"),
        (header_of(b'{"x": \xff}'), "cannot be read"),
        (header_of(b"[" * 100_000), "cannot be read"),
        (header_of(b'{"x": {}, "x": {}}'), "a name occurs twice"),
        (header_of([]), "no JSON object"),
        (header_of({"x": {**entry(), "more": 1}}) + b"1234", "other fields"),
        (header_of({"x": entry("U7")}) + b"1234", "holds x as 'U7'"),
        (header_of({"x": entry(shape=(-4,))}) + b"1234", "-4 is not a whole number"),
        (header_of({"x": entry(shape=(4.0,))}) + b"1234", "4.0 is not a whole number"),
        (header_of({"x": entry(shape=(True, 4))}) + b"1234", "whole numbers"),
        (header_of({"x": entry(offsets=(0, 4, 8))}) + b"1234", "whole numbers"),
        (header_of({"x": entry(shape=(5,))}) + b"1234", "gives x 4 bytes where its shape needs 5"),
        (header_of({"x": entry(offsets=(1, 5))}) + b"12345", "a gap or an overlap before x"),
        (header_of({"x": entry(), "y": entry(offsets=(2, 6))}) + b"123456", "a gap or an overlap before y"),
        (header_of({"x": entry()}) + b"123", "where its header describes"),
        (header_of({"x": entry()}) + b"12345", "where its header describes"),
    ],
)
def test_a_header_that_lies_is_refused(folders, content, says):
    (folders[0] / "in.safetensors").write_bytes(content)
    with pytest.raises(ShimError, match=says) as caught:
        cut(folders, [whole("x", "U8", (4,))])
    assert caught.value.reason is Reason.BAD_TENSOR
    assert not folders[1].exists()


@pytest.fixture
def source(folders):
    write_raw(folders[0] / "in.safetensors", {"x": ("U8", (4, 2), bytes(range(8)))})
    return folders


def x(axes=("", ""), dtype="U8", shape=(4, 2), name="x", file="in.safetensors"):
    return cut_of("out", file, name, dtype, shape, axes)


@pytest.mark.parametrize(
    ("tensors", "file", "reason", "says"),
    [
        ([x(name="y")], "o", Reason.BAD_TENSOR, "in.safetensors has no tensor y"),
        ([x(dtype="I8")], "o", Reason.BAD_TENSOR, r"is U8 \[4, 2\] where the request says I8"),
        ([x(shape=(2, 4))], "o", Reason.BAD_TENSOR, r"where the request says U8 \[2, 4\]"),
        ([x(("far", ""))], "o", Reason.BAD_TENSOR, "keeps position 4 of axis 0 of x, which has 4"),
        ([x(("none", ""))], "o", Reason.INVALID_REQUEST, "index set 'none', which was not sent"),
        ([x(("",))], "o", Reason.INVALID_REQUEST, "1 axis entries for the 2 axes"),
        ([x(), x()], "o", Reason.INVALID_REQUEST, "two tensors of the name out"),
        ([], "o", Reason.INVALID_REQUEST, "shard o has no tensors"),
        ([x(file="../in.safetensors")], "o", Reason.PATH_DENIED, "no plain file name"),
        ([x(file="/etc/passwd")], "o", Reason.PATH_DENIED, "no plain file name"),
        ([x()], "../o", Reason.PATH_DENIED, "no plain file name"),
        ([x()], "..", Reason.PATH_DENIED, "no plain file name"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(source, tensors, file, reason, says):
    with pytest.raises(ShimError, match=says) as caught:
        cut(source, tensors, {"far": np.array([0, 4])}, file=file)
    assert caught.value.reason is reason
    assert not source[1].exists()


@pytest.mark.parametrize(
    ("first", "blocks", "reason", "says"),
    [
        (("", ""), [("",)] * 4, Reason.INVALID_REQUEST, "2 axis entries beside its blocks"),
        (("",), [("",)] * 3, Reason.INVALID_REQUEST, "3 blocks for the 4 positions"),
        (("two",), [("",)] * 4, Reason.INVALID_REQUEST, "4 blocks for the 2 positions"),
        (("two",), [("",), ("", "")], Reason.INVALID_REQUEST, "block 1 of out has 2 axis entries for the 1 axes"),
        (("two",), [("one",), ("none",)], Reason.INVALID_REQUEST, "axis 1 of block 1 of out names index set 'none'"),
        (("two",), [("",), ("one",)], Reason.BAD_TENSOR, r"block 1 of out is cut to \[1\] where block 0 .* \[2\]"),
        (("two",), [("one",), ("far",)], Reason.BAD_TENSOR, "keeps position 4 of axis 1 of x, which has 2"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(source, first, blocks, reason, says):
    sets = {"far": np.array([4]), "two": np.array([0, 3]), "one": np.array([1])}
    with pytest.raises(ShimError, match=says) as caught:
        cut(source, [cut_of("out", "in.safetensors", "x", "U8", (4, 2), first, tuple(blocks))], sets)
    assert caught.value.reason is reason
    assert not source[1].exists()


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (HostTensor("I64", np.array([0, 2, 1])), "1 follows 2 at position 2"),
        (HostTensor("I64", np.array([0, 1, 1])), "1 follows 1"),
        (HostTensor("I64", np.array([-1, 1])), "negative position -1"),
        (HostTensor("I64", np.array([[0, 1]])), "an I64 vector"),
        (HostTensor("I32", np.array([0, 1], np.int32)), "an I64 vector"),
    ],
)
def test_index_sets_are_checked(tensor, says):
    with pytest.raises(ShimError, match=says) as caught:
        index_sets_of({"k": tensor})
    assert caught.value.reason is Reason.BAD_TENSOR


def test_a_folder_that_is_not_there(source, tmp_path):
    for folders in [(source[0], tmp_path / "nothing" / "job"), (tmp_path / "nothing", source[1])]:
        with pytest.raises(FileNotFoundError):
            cut(folders, [x()])


def test_a_folder_of_something_else_is_left_alone(source):
    source[1].mkdir()
    (source[1] / "theirs").write_text("kept")
    with pytest.raises(ShimError, match=r"holds theirs: it is no slicing job") as caught:
        cut(source, [x()])
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert [path.name for path in source[1].iterdir()] == ["theirs"]


def test_a_full_disk_is_told_before_anything_is_written(source, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=7))
    with pytest.raises(ShimError, match=r"8 bytes are left to write and .* has 7 free") as caught:
        cut(source, [x()])
    assert caught.value.reason is Reason.STORAGE_FULL
    assert not source[1].exists()


def big_source(folders, size=1 << 20):
    write_raw(folders[0] / "in.safetensors", {"x": ("U8", (size,), bytes(size)), "y": ("U8", (size,), bytes(size))})
    return [whole("x", "U8", (size,)), whole("y", "U8", (size,))]


def test_progress_ends_with_all_bytes(folders):
    told = []
    cut(folders, big_source(folders), tick=lambda *at: told.append(at))
    assert told[-1] == (2 << 20, 2 << 20)
    assert told == sorted(told)


def test_many_shards_of_many_tensors(folders, rng):
    arrays = {f"t{i}": rng.integers(0, 256, (i + 1, 33), dtype=np.uint8) for i in range(40)}
    write_raw(folders[0] / "in.safetensors", {n: ("U8", a.shape, a.tobytes()) for n, a in arrays.items()})
    names = list(arrays)
    shards = [OutputShard(f"s{i}", {}, tuple(whole(n, "U8", arrays[n].shape) for n in names[i::7])) for i in range(7)]
    written = slice_shards(SliceJob(*folders, shards, {}), lambda *_: None).shards
    assert [shard.file for shard in written] == [shard.file for shard in shards]
    for shard, out in zip(shards, written, strict=True):
        raw = (folders[1] / "child" / shard.file).read_bytes()
        assert (out.size, out.crc32) == (len(raw), zlib.crc32(raw))
        header, data = read_raw(folders[1] / "child" / shard.file)
        assert list(header) == [tensor.name for tensor in shard.tensors]
        assert all(data[name] == arrays[name].tobytes() for name in header)


def test_a_shard_is_invalid_until_it_is_committed(tmp_path):
    header = build_header({"x": ("U8", (4,))}, {})
    path = tmp_path / "s"
    shard = ShardFile(OpenFolder(tmp_path), "s", header, len(header) + 4, set())
    for late in (False, True):
        shard.write(shard.fd, np.frombuffer(b"abcd", np.uint8), 0)
        if not late:
            for readable in (path.read_bytes(), path.read_bytes()[: len(header)]):
                path.with_suffix(".copy").write_bytes(readable)
                with pytest.raises(Exception, match=r"(?i)header"):
                    load_file(path.with_suffix(".copy"))
        shard.commit(flush=True)
        assert load_file(path)["x"].tobytes() == b"abcd"
    shard.close()


def test_a_shard_of_another_length_is_not_committed(tmp_path):
    header = build_header({"x": ("U8", (4,))}, {})
    (tmp_path / "s").write_bytes(bytes(len(header) + 5))
    shard = ShardFile(OpenFolder(tmp_path), "s", header, len(header) + 4, set())
    with pytest.raises(ShimError, match="bytes where"):
        shard.commit(flush=True)
    shard.close()
    assert (tmp_path / "s").read_bytes()[:8] == bytes(8)


@pytest.mark.parametrize(("umask", "mode"), [(0o027, 0o640), (0o022, 0o644)])
def test_a_new_file_heeds_the_umask(source, umask, mode):
    before = os.umask(umask)
    try:
        cut(source, [x()])
    finally:
        os.umask(before)
    assert (source[1] / "child" / "out.safetensors").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("lengths", [(0, 0), (1, 0), (0, 5), (3, 4), (1000, 1), (1, 70_000), (12345, 54321)])
def test_crcs_join(rng, lengths):
    first, second = (rng.bytes(length) for length in lengths)
    parts = [(zlib.crc32(first), len(first)), (zlib.crc32(second), len(second))]
    assert join_crc32(b"head", parts) == zlib.crc32(b"head" + first + second)


def unpack(data, bits):
    """The elements of packed bytes, lowest bits first."""
    stream = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(-1, bits)
    return stream @ (1 << np.arange(bits))


@pytest.mark.parametrize(("dtype", "group"), [("F4", 2), ("F6_E2M3", 4), ("F6_E3M2", 4)])
def test_packed_elements_are_cut_in_whole_bytes(folders, rng, dtype, group):
    bits = ITEM_BITS[dtype]
    shape = (6, 5, 8 * group)
    data = rng.integers(0, 256, 6 * 5 * 8 * group * bits // 8, dtype=np.uint8).tobytes()
    write_raw(folders[0] / "in.safetensors", {"x": (dtype, shape, data)})
    columns = (np.array([1, 2, 5, 7])[:, None] * group + np.arange(group)).ravel()
    sets = {"r": np.array([0, 3, 4]), "c": columns}
    cut(folders, [cut_of("x", "in.safetensors", "x", dtype, shape, ("r", "", "c"))], sets)
    header, stored = read_raw(folders[1] / "child" / "out.safetensors")
    kept_shape = header["x"]["shape"]
    assert kept_shape == [3, 5, 4 * group]
    expected = unpack(data, bits).reshape(shape)[sets["r"]][:, :, columns]
    assert np.array_equal(unpack(stored["x"], bits).reshape(kept_shape), expected)


@pytest.mark.parametrize(("dtype", "group"), [("F4", 2), ("F6_E2M3", 4)])
def test_a_cut_through_a_byte_is_refused(folders, dtype, group):
    shape = (2, 4 * group)
    data = bytes(8 * group * ITEM_BITS[dtype] // 8)
    write_raw(folders[0] / "in.safetensors", {"x": (dtype, shape, data)})
    for columns in ([0, 1, group], [*range(1, group + 1)], [0, 2 * group, 1 + 2 * group, 3 * group][:group]):
        with pytest.raises(ShimError, match="share bytes") as caught:
            cut(
                folders,
                [cut_of("x", "in.safetensors", "x", dtype, shape, ("", "c"))],
                {"c": np.unique(columns)},
            )
        assert caught.value.reason is Reason.BAD_TENSOR


def parts_of(name, *sources):
    return TensorSlice(name, tuple(TensorPart("in.safetensors", *source) for source in sources))


def test_parts_are_joined_in_order(folders, rng):
    a = rng.integers(0, 256, (6, 4, 2), dtype=np.uint8)
    b = rng.integers(0, 256, (3, 4, 2), dtype=np.uint8)
    stored = {"a": ("F16", (6, 4), a.tobytes()), "b": ("F16", (3, 4), b.tobytes())}
    write_raw(folders[0] / "in.safetensors", stored)
    sets = {"low": np.array([0, 2]), "high": np.array([3, 5]), "c": np.array([1, 3])}
    shape_a, shape_b = ("F16", (6, 4)), ("F16", (3, 4))
    joined = parts_of("x", ("a", *shape_a, ("low", "c")), ("b", *shape_b, ("", "c")), ("a", *shape_a, ("high", "c")))
    cut(folders, [joined], sets)
    header, data = read_raw(folders[1] / "child" / "out.safetensors")
    expected = np.concatenate([a[[0, 2]], b, a[[3, 5]]])[:, [1, 3]]
    assert header["x"]["shape"] == [7, 2]
    assert data["x"] == expected.tobytes()


@pytest.mark.parametrize(
    ("tensor", "reason", "says"),
    [
        (TensorSlice("x", ()), Reason.INVALID_REQUEST, "x has no parts"),
        (
            parts_of("x", ("a", "F16", (6, 4), ("", "")), ("a", "F16", (6, 4), ("", "c"))),
            Reason.BAD_TENSOR,
            r"cannot be joined: they are cut to F16 \[6, 4\], F16 \[6, 2\]",
        ),
        (
            parts_of("x", ("a", "F16", (6, 4), ("", "")), ("b", "BF16", (6, 4), ("", ""))),
            Reason.BAD_TENSOR,
            "cannot be joined",
        ),
        (parts_of("x", ("s", "F16", (), ()), ("s", "F16", (), ())), Reason.BAD_TENSOR, "cannot be joined"),
    ],
)
def test_parts_that_cannot_be_joined_are_refused(folders, tensor, reason, says):
    data = bytes(48)
    stored = {"a": ("F16", (6, 4), data), "b": ("BF16", (6, 4), data), "s": ("F16", (), bytes(2))}
    write_raw(folders[0] / "in.safetensors", stored)
    with pytest.raises(ShimError, match=says) as caught:
        cut(folders, [tensor], {"c": np.array([0, 1])})
    assert caught.value.reason is reason
