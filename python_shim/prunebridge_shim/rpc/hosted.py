"""Work on the model of the job that the shim is a guest of. Imports torch."""

import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunebridge_shim.cluster.job import LeadingRank
from prunebridge_shim.cluster.save_plan import SaveJob
from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, session_pb2, work_pb2
from prunebridge_shim.rpc import capabilities
from prunebridge_shim.rpc.operations import Operation
from prunebridge_shim.rpc.registry import LANES, MODELS
from prunebridge_shim.rpc.requests import brings_batches, measure_of, output_shards, read_index_sets
from prunebridge_shim.rpc.worker import Outcome, sliced

INSTEAD: Mapping[str, str] = {
    "open_model": "the job's own model is open: the handshake tells its id",
    "open_subnet": "prune the model's checkpoint with a shim of its own to look at candidates",
    "forward": "evaluate_loss runs the model on all of its ranks",
    "cut_model": "save the child from the live weights, or cut the model's checkpoint",
    "score_model": "evaluate_loss judges the model on batches of the client's",
}
"""What can be done in the place of work that a guest does not do."""


class HostedModel:
    """The model of a job, on all of its ranks. Work on it is done where the job attends its lane, by rank 0."""

    lanes: Mapping[str, str] = {**LANES, "close_model": "closing"}
    attended: Collection[str] = (MODELS,)

    def __init__(self, job: LeadingRank) -> None:
        self._job = job
        self.model_id = f"model-{secrets.token_hex(8)}"
        self.steps = 0
        """Step boundaries that the job has passed: behind each its weights may be others."""
        self._kinds: Mapping[str, Callable[[Any, Operation], Outcome]] = {
            "close_model": self._close,
            "collect": self._collect,
            "evaluate_loss": self._evaluate_loss,
            "save_model": self._save,
        }

    def kinds(self) -> list[str]:
        """What the shim does by itself, and what the job does with its model."""
        beside = [kind for kind in LANES if kind in capabilities.capabilities()]
        return [*beside, *self._kinds]

    def check(self, kind: str, work: Any) -> None:
        """Raises what keeps a piece of work from being started.

        Raises:
            ShimError: INVALID_REQUEST for what a guest does not do, UNKNOWN_MODEL, MISSING_DEPENDENCY, and RANK_LOST
                while ranks give no sign of life.
        """
        if kind in LANES:
            capabilities.require(kind)
            return
        if kind not in self._kinds:
            message = f"a guest does no {kind}: the model belongs to the job, on {self._job.facts.world_size} ranks"
            raise ShimError(Reason.INVALID_REQUEST, message, INSTEAD.get(kind, ""))
        if work.model_id != self.model_id:
            message = f"no model {work.model_id!r} is open: the job's own is {self.model_id}"
            raise ShimError(Reason.UNKNOWN_MODEL, message, "another boot id means that the job was started again")
        if brings_batches(work):
            raise ShimError(
                Reason.PYTHON_DENIED,
                "a guest calls no Python functions: batches have to reach all ranks of the job alike",
                "send the batches from the client",
            )
        if kind != "close_model" and (lost := self._job.lost) is not None:
            raise lost

    def devices(self) -> Sequence[session_pb2.Device]:
        """None: the job's model is the only one."""
        return ()

    def ranks(self) -> session_pb2.RankLayout:
        """The parallel sizes of the job."""
        layout = self._job.facts.layout
        return session_pb2.RankLayout(
            world_size=self._job.facts.world_size,
            tensor=layout.tensor.size,
            pipeline=layout.pipeline.size,
            data=layout.data.size,
            context=layout.context.size,
            expert=layout.expert.size,
        )

    def attached(self) -> Sequence[session_pb2.AttachedModel]:
        """The job's model."""
        facts = self._job.facts
        model = session_pb2.AttachedModel(
            model_id=self.model_id,
            device=facts.device,
            dtype=facts.dtype,
            parameters=facts.parameters,
            config_json=json.dumps(facts.config),
            steps=self.steps,
        )
        return (model,)

    def run(self, operation: Operation) -> Outcome:
        """Runs an operation on all ranks."""
        return self._kinds[operation.kind](operation.work, operation)

    def _close(self, _work: work_pb2.CloseModel, _operation: Operation) -> Outcome:
        # Between two operations, nothing of a client's is kept.
        return operation_pb2.Succeeded(model_closed=work_pb2.ModelClosed()), {}

    def _collect(self, work: work_pb2.Collect, operation: Operation) -> Outcome:
        points = [HookPoint(point.key, point.module, measure_of(point)) for point in work.hooks]
        done = self._job.collect(points, operation.feed, operation.ticker("collecting", "batches"))
        collected = work_pb2.Collected(
            batches=done.batches, samples=done.samples, tokens=done.tokens, forward_seconds=done.forward_seconds
        )
        return operation_pb2.Succeeded(collected=collected), done.sums

    def _evaluate_loss(self, _work: work_pb2.EvaluateLoss, operation: Operation) -> Outcome:
        loss, tokens = self._job.evaluate_loss(operation.feed, operation.ticker("evaluating", "batches"))
        return operation_pb2.Succeeded(loss_evaluated=work_pb2.LossEvaluated(loss=loss, tokens=tokens)), {}

    def _save(self, work: work_pb2.SaveModel, operation: Operation) -> Outcome:
        job = SaveJob(
            Path(work.job_dir),
            output_shards(work.shards),
            read_index_sets(operation.feed),
            flush=not work.skip_flush,
            sha256=work.sha256,
        )
        return sliced(self._job.save_model(job, operation.ticker("saving", "bytes"))), {}
