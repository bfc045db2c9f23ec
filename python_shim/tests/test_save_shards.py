"""Where a child is saved to, as a rank may find it: closing is when a file server says that it has no room."""

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from prunebridge_shim.cluster.save_folder import open_made
from prunebridge_shim.cluster.save_shards import Shards
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.layout import ShardLayout
from prunebridge_shim.slicing.leftovers import JOB_FILE
from prunebridge_shim.slicing.opened import OpenFolder

HEADER = bytes(16)
BLOCK = np.arange(8, dtype=np.uint8)


@pytest.fixture
def opened(tmp_path):
    (tmp_path / "child").mkdir()
    layouts = [ShardLayout(f"{name}.safetensors", HEADER, (), len(HEADER) + BLOCK.size, ()) for name in "ab"]
    with ExitStack() as stack:
        shards = Shards(3, OpenFolder(tmp_path), layouts, False, stack)
        for number in range(2):
            shards.write(number, 0, BLOCK)
        yield shards, stack


def open_twice(file):
    """Gives two descriptors of a file: closing one behind its back has the system refuse to close the file."""
    first = file.fd
    file.reopen()
    return first, file.fd


def test_a_file_that_cannot_be_closed_is_the_failure_of_its_rank(opened):
    shards, _stack = opened
    first, stolen = open_twice(shards.files[0])
    left = [first, shards.files[1].fd]
    os.close(stolen)
    shards.finish()
    assert shards.failure.reason is Reason.STORAGE_FAILED
    assert shards.failure.message.startswith(f"rank 3: {shards.files[0].path}: ")
    for fd in left:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_no_shard_is_committed_that_cannot_be_closed(opened):
    shards, _stack = opened
    shards.finish()
    pairs = [open_twice(file) for file in shards.files]
    os.close(pairs[1][0])
    with pytest.raises(ShimError, match=r"rank 3: .*b\.safetensors: Bad file descriptor"):
        shards.commit()


def test_what_was_agreed_on_stays_the_error(opened):
    shards, stack = opened
    os.close(open_twice(shards.files[0])[1])
    agreed = ShimError(Reason.STORAGE_FULL, "rank 1: no room")
    with pytest.raises(ShimError) as caught, stack:
        raise agreed
    assert caught.value is agreed


def open_files():
    return sorted(file.name for file in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("content", [b"", b'{"identity": "sa', b"[]", b"{}", b"\xff", b'{"identity": "save another"}'])
def test_a_folder_of_another_job_or_a_torn_one_is_not_where_to_save(tmp_path, content):
    (tmp_path / JOB_FILE).write_bytes(content)
    before = open_files()
    with pytest.raises(ShimError, match="is not the folder that the job's first rank has made") as caught:
        open_made(tmp_path, "save this")
    assert caught.value.reason is Reason.PATH_NOT_FOUND
    assert open_files() == before
