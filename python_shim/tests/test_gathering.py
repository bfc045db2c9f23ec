import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gather_at_the_edge import block_of, random_cut

from prunebridge_shim.slicing import gathering
from prunebridge_shim.slicing import kernel as kernels
from prunebridge_shim.slicing.gathering import AxisGatherer, LineGatherer


def taken(block, rows, inner, item_bytes):
    """What numpy takes of a block, axis after axis."""
    items = block.reshape(rows[-1] + 1, *(size for size, _ in inner), item_bytes)
    for axis, kept in enumerate([rows, *(kept for _, kept in inner)]):
        items = items if kept is None else np.take(items, kept, axis)
    return items.tobytes()


@pytest.mark.parametrize("seed", range(300))
def test_both_ways_gather_what_numpy_takes(kernel, seed):
    rng = np.random.default_rng(seed)
    rows, inner, item_bytes = random_cut(rng)
    block = block_of(rng, rows, inner, item_bytes)
    before = block.copy()
    for gatherer in (LineGatherer(kernel, inner, item_bytes), AxisGatherer(inner, item_bytes)):
        gathered = gatherer.gather(block, rows, lambda _, count: np.zeros(count, np.uint8))
        assert gathered.tobytes() == taken(block, rows, inner, item_bytes)
    assert np.array_equal(block, before)


def test_no_byte_beside_the_buffers_is_touched(kernel_source):
    """Buffers lie between pages that end a process which touches them."""
    program = Path(__file__).with_name("gather_at_the_edge.py")
    environment = {**os.environ, "PYTHONPATH": str(program.parents[1])}
    done = subprocess.run(
        [sys.executable, program, kernel_source, "500"], check=False, stdout=subprocess.PIPE, env=environment
    )
    assert (done.returncode, done.stdout) == (0, b"500")


def test_a_kernel_of_another_source_is_not_loaded(kernel, kernel_source):
    text = kernel_source.read_text()
    try:
        kernel_source.write_text(text.replace("prunebridge_gather", "renamed"))
        assert kernels.load.__wrapped__() is None
    finally:
        kernel_source.write_text(text)
    assert kernels.load.__wrapped__()


@pytest.fixture
def unbuilt(tmp_path, monkeypatch):
    source = tmp_path / "gather.c"
    source.write_bytes(kernels.SOURCE.read_bytes())
    monkeypatch.setattr(kernels, "SOURCE", source)
    return source


def test_building_leaves_one_file(kernel, unbuilt):
    unbuilt.with_name(kernels.library().name.replace(".so", "0.so")).touch()
    assert kernels.main() == 0
    assert set(unbuilt.parent.iterdir()) == {unbuilt, kernels.library()}


@pytest.mark.parametrize(
    ("compiler", "says"),
    [("/no/such/cc", "No such file"), (shlex.join([sys.executable, "-c", "exit('broken')"]), "broken")],
)
def test_a_build_that_fails_says_why_and_leaves_nothing(unbuilt, monkeypatch, capsys, compiler, says):
    monkeypatch.setenv("CC", compiler)
    assert kernels.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("checkpoints will be cut by numpy")
    assert says in line
    assert list(unbuilt.parent.iterdir()) == [unbuilt]


def test_what_is_no_library_is_done_without(unbuilt):
    kernels.library().write_bytes(b"not a library")
    assert kernels.load.__wrapped__() is None


def test_numpy_gathers_without_a_kernel(monkeypatch, kernel):
    inner = [(4, np.array([0, 2]))]
    for found, gatherer in ((None, AxisGatherer), (kernel, LineGatherer)):
        monkeypatch.setattr(gathering, "load", lambda found=found: found)
        assert type(gathering.gatherer_of(inner, 2)) is gatherer
