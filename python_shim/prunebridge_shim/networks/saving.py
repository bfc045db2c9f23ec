"""Writes the weights of a network into a job's folder."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from zlib_ng import zlib_ng

from prunebridge_shim.errors import Reason, ShimError, storage_error
from prunebridge_shim.models.dtypes import spelling_of
from prunebridge_shim.networks.architecture import WEIGHTS
from prunebridge_shim.slicing.folder import JobFolder
from prunebridge_shim.slicing.headers import build_header
from prunebridge_shim.slicing.room import check_room
from prunebridge_shim.slicing.run import Outcome, WrittenShard
from prunebridge_shim.slicing.shard import ShardFile
from prunebridge_shim.subnet.child import names_of_each, stored_tensors
from prunebridge_shim.tensors import Tick, byte_length

BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class NetworkSave:
    """Where to write; the fields are those of a `SliceJob`."""

    job_dir: Path
    flush: bool = True
    sha256: bool = False


def save_network(network: nn.Module, job: NetworkSave, tick: Tick) -> Outcome:
    """Writes a network's parameters and stored buffers, tied ones once, as `child/model.safetensors`.

    The file is whole or not there: a save that fails leaves no folder, and one that was killed one that the next
    removes.

    Args:
        network: A network that holds its own weights.
        job: Where to.
        tick: Hears of bytes that are written; may raise to end that.

    Raises:
        ShimError: INVALID_REQUEST for tensors without memory or of a type that safetensors lacks, TARGET_BUSY,
            STORAGE_FULL, STORAGE_FAILED.
    """
    tensors = _tensors_once(network)
    described = {name: (spelling_of(one.dtype), tuple(one.shape)) for name, one in tensors.items()}
    header = build_header(described, {"format": "pt"})
    total = len(header) + sum(byte_length(*one) for one in described.values())
    with ExitStack() as stack:
        identity = f"save {uuid4().hex}"
        folder = JobFolder(job.job_dir, identity, job.flush, partial(tick, 0, total), stack)
        try:
            check_room(folder.path, total)
            file = ShardFile(folder.open, f"{folder.make_within('')}/{WEIGHTS}", header, total, ())
            stack.callback(file.close)
            crc32 = _write(file, tensors, folder, tick)
            file.commit(job.flush)
            if job.flush:
                folder.sync_child()
            sha256 = _sha256(file, folder) if job.sha256 else b""
            folder.check()
        except BaseException as error:
            with suppress(OSError):  # what failed the save may fail this too
                folder.leave(done=False, keep=False)
            if isinstance(error, OSError):
                raise storage_error(error) from error
            raise
        folder.leave(done=True, keep=True)
    return Outcome([WrittenShard(WEIGHTS, total, crc32, sha256)], found_bytes=0, folder_id=folder.folder_id)


def _tensors_once(network: nn.Module) -> dict[str, torch.Tensor]:
    tensors = stored_tensors(network)
    once = {names[0]: tensors[names[0]].detach() for names in names_of_each(tensors).values()}
    unmade = next((name for name, tensor in once.items() if tensor.is_meta), None)
    if unmade is not None:
        raise ShimError(
            Reason.INVALID_REQUEST,
            f"{unmade} is made when it is used: a view by units holds no weights of its own",
            "cut the model by its plan on storage",
        )
    return once


def _write(file: ShardFile, tensors: dict[str, torch.Tensor], folder: JobFolder, tick: Tick) -> int:
    """Writes all tensors behind the header; gives the file's CRC-32."""
    crc32, offset = zlib_ng.crc32(file.header), 0
    for tensor in tensors.values():
        for block in _blocks(tensor):
            tick(offset, file.size)
            folder.beat()
            file.write(file.fd, block, offset)
            crc32 = zlib_ng.crc32(block, crc32)
            offset += block.nbytes
    return crc32


def _blocks(tensor: torch.Tensor) -> Iterator[NDArray[np.uint8]]:
    flat = tensor.contiguous().flatten()
    step = max(1, BLOCK_BYTES // tensor.element_size())
    for begin in range(0, math.prod(tensor.shape), step):
        yield flat[begin : begin + step].cpu().view(torch.uint8).numpy()


def _sha256(file: ShardFile, folder: JobFolder) -> bytes:
    digest = hashlib.sha256()
    file.reopen()  # has a file server look what is there by now
    for block in file.read(0, file.size):
        folder.beat()
        digest.update(block)
    return digest.digest()
