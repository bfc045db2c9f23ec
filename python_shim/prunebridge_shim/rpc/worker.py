"""Runs operations: from the request's words to the work's and back."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Protocol

from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, work_pb2
from prunebridge_shim.rpc.operations import Operation
from prunebridge_shim.rpc.requests import output_shards, read_index_sets, torch_dist_save
from prunebridge_shim.rpc.roots import Roots
from prunebridge_shim.rpc.wire import info_of
from prunebridge_shim.slicing import run
from prunebridge_shim.slicing.request import SliceJob
from prunebridge_shim.tensors import HostTensor

Outcome = tuple[operation_pb2.Succeeded, Mapping[str, HostTensor]]
"""A result, and the tensors that are left."""


class WorkOnModels(Protocol):
    """Does the kinds of work that are about models."""

    def run(self, operation: Operation) -> Outcome:
        """Runs an operation; raises what went wrong."""


class ShimWorker:
    """Does all kinds of work. torch is imported with the first that needs it, so that the rest need not wait for it."""

    def __init__(self, entry_points: EntryPoints, roots: Roots, models: WorkOnModels | None = None) -> None:
        """`models` does the work on models; without it, they are opened here."""
        self._entry_points = entry_points
        self._roots = roots
        self._given = models
        # Two threads that import torch at once can each see half of it.
        self._importing = Lock()

    def run(self, operation: Operation) -> None:
        """Runs an operation to its success; raises what went wrong."""
        # Once more: while the operation waited, a folder may have become a symlink.
        self._roots.confine(operation.kind, operation.work)
        tensors: Mapping[str, HostTensor] = {}
        if operation.kind == "slice":
            result = self._slice(operation)
        elif operation.kind == "tokenize":
            result, tensors = self._tokenize(operation)
        else:
            result, tensors = self._models.run(operation)
        result.tensors.extend(info_of(name, tensor) for name, tensor in tensors.items())
        operation.succeed(result, tensors)

    @cached_property
    def _models(self) -> WorkOnModels:
        if self._given is not None:
            return self._given
        with self._importing:
            from prunebridge_shim.rpc.model_work import ModelWork

        return ModelWork(self._entry_points)

    def _slice(self, operation: Operation) -> operation_pb2.Succeeded:
        work = operation.work
        job = SliceJob(
            Path(work.source_dir),
            Path(work.job_dir),
            output_shards(work.shards),
            read_index_sets(operation.feed),
            flush=not work.skip_flush,
            sha256=work.sha256,
            torch_dist=torch_dist_save(work),
        )
        return sliced(run.slice_shards(job, operation.ticker("slicing", "bytes")))

    def _tokenize(self, operation: Operation) -> Outcome:
        with self._importing:
            from prunebridge_shim.models.tokenizing import tokenize

        ids, texts = tokenize(operation.work.path, operation.feed.batches(), operation.ticker("tokenizing", "texts"))
        result = work_pb2.Tokenized(texts=texts, tokens=len(ids))
        return operation_pb2.Succeeded(tokenized=result), {"input_ids": HostTensor("I64", ids)}


def sliced(outcome: run.Outcome) -> operation_pb2.Succeeded:
    """The result of work that wrote shards."""
    shards = [
        work_pb2.ShardWritten(file=one.file, bytes=one.size, crc32=one.crc32, sha256=one.sha256)
        for one in outcome.shards
    ]
    result = work_pb2.Sliced(shards=shards, found_bytes=outcome.found_bytes, folder_id=outcome.folder_id)
    return operation_pb2.Succeeded(sliced=result)
