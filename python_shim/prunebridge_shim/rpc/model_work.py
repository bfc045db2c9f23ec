"""Work on open models. Imports torch."""

from typing import TYPE_CHECKING, Any

from prunebridge_shim.collect.hooks import HookPoint
from prunebridge_shim.collect.run import collect
from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, work_pb2
from prunebridge_shim.models.checkpoint import load_model
from prunebridge_shim.models.experts import run_experts_of_any_width
from prunebridge_shim.models.fetching import check_fetches_nothing
from prunebridge_shim.models.forward import forward
from prunebridge_shim.models.loss import evaluate_loss
from prunebridge_shim.models.store import ModelStore, count_parameters, pick_device
from prunebridge_shim.networks.documents import parse_object
from prunebridge_shim.networks.forward import forward_network
from prunebridge_shim.networks.prepare import prepare_resized
from prunebridge_shim.rpc.gradient_work import collect_gradients_by
from prunebridge_shim.rpc.network_work import NetworkWork
from prunebridge_shim.rpc.operations import Operation
from prunebridge_shim.rpc.python_work import collect_by_python, score_by_python
from prunebridge_shim.rpc.requests import brings_batches, measure_of, read_index_sets, sizes_of, tensor_slice
from prunebridge_shim.rpc.worker import Outcome
from prunebridge_shim.subnet.cut import cut_model
from prunebridge_shim.subnet.prepare import PreparedChild, prepare_child
from prunebridge_shim.subnet.view import make_view, open_view

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class ModelWork:
    """The models that are open, and what can be done with them. `work` is the message in the request's oneof."""

    def __init__(self, entry_points: EntryPoints) -> None:
        self._models = ModelStore()
        self._entry_points = entry_points
        self._kinds: Mapping[str, Callable[[Any, Operation], Outcome]] = {
            "open_model": self._open,
            "close_model": self._close,
            "collect": self._collect,
            "evaluate_loss": self._evaluate_loss,
            "forward": self._forward,
            "cut_model": self._cut,
            "open_subnet": self._open_subnet,
            "score_model": self._score,
            "collect_gradients": self._collect_gradients,
            **NetworkWork(self._models, entry_points).kinds,
        }

    def run(self, operation: Operation) -> Outcome:
        """Runs an operation; gives its result and the tensors it leaves."""
        return self._kinds[operation.kind](operation.work, operation)

    def _open(self, work: work_pb2.OpenModel, operation: Operation) -> Outcome:
        tick = operation.ticker("loading", "models")
        tick(0, 1)
        model = load_model(work.path, pick_device(work.device), work.dtype, work.unread_tensors)
        run_experts_of_any_width(model)
        tick(1, 1)
        opened = work_pb2.ModelOpened(
            model_id=self._models.add(model),
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            parameters=count_parameters(model),
        )
        return operation_pb2.Succeeded(model_opened=opened), {}

    def _close(self, work: work_pb2.CloseModel, _operation: Operation) -> Outcome:
        self._models.remove(work.model_id)
        return operation_pb2.Succeeded(model_closed=work_pb2.ModelClosed()), {}

    def _collect(self, work: work_pb2.Collect, operation: Operation) -> Outcome:
        points = [HookPoint(point.key, point.module, measure_of(point)) for point in work.hooks]
        model = self._models.get_language_model(work.model_id)
        tick = operation.ticker("collecting", "batches")
        if brings_batches(work):
            done = collect_by_python(model, points, work, self._entry_points, tick)
        else:
            done = collect(model, points, operation.feed, tick)
        collected = work_pb2.Collected(
            batches=done.batches, samples=done.samples, tokens=done.tokens, forward_seconds=done.forward_seconds
        )
        return operation_pb2.Succeeded(collected=collected), done.sums

    def _evaluate_loss(self, work: work_pb2.EvaluateLoss, operation: Operation) -> Outcome:
        model = self._models.get_language_model(work.model_id)
        loss, tokens = evaluate_loss(model, operation.feed, operation.ticker("evaluating", "batches"))
        return operation_pb2.Succeeded(loss_evaluated=work_pb2.LossEvaluated(loss=loss, tokens=tokens)), {}

    def _forward(self, work: work_pb2.Forward, operation: Operation) -> Outcome:
        run = forward_network if self._models.is_network(work.model_id) else forward
        model = self._models.get(work.model_id)
        batches = run(model, operation.feed, operation.ticker("running", "batches"))
        return operation_pb2.Succeeded(forwarded=work_pb2.Forwarded(batches=batches)), {}

    def _score(self, work: work_pb2.ScoreModel, operation: Operation) -> Outcome:
        model = self._models.get(work.model_id)
        score = score_by_python(model, work.score_func, self._entry_points, operation.ticker("scoring", "batches"))
        return operation_pb2.Succeeded(model_scored=work_pb2.ModelScored(score=score)), {}

    def _collect_gradients(self, work: work_pb2.CollectGradients, operation: Operation) -> Outcome:
        self._models.get_language_model(work.model_id)
        model = self._models.get_parent(work.model_id)
        tick = operation.ticker("collecting gradients", "batches")
        done = collect_gradients_by(model, work, lambda: operation.feed, self._entry_points, tick)
        collected = work_pb2.GradientsCollected(
            batches=done.batches,
            samples=done.samples,
            tokens=done.tokens,
            loss=done.loss,
            pass_seconds=done.pass_seconds,
        )
        return operation_pb2.Succeeded(gradients_collected=collected), done.sums

    def _cut(self, work: work_pb2.CutModel, operation: Operation) -> Outcome:
        prepared = _prepare(self._models.get_unviewed(work.model_id), work, operation)
        is_network = self._models.is_network(work.model_id)
        # From here on the model is no more, whatever happens.
        self._models.remove(work.model_id)
        child = cut_model(prepared)
        run_experts_of_any_width(child)
        self._models.put(work.model_id, child, is_network=is_network)
        return operation_pb2.Succeeded(model_cut=work_pb2.ModelCut(parameters=count_parameters(child))), {}

    def _open_subnet(self, work: work_pb2.OpenSubnet, operation: Operation) -> Outcome:
        prepared = _prepare(self._models.get_parent(work.model_id), work, operation)
        if work.units and not work.config_json:
            raise ShimError(Reason.INVALID_REQUEST, "a child of changed modules is made at once", "name no units")
        view = open_view(prepared, list(work.units)) if work.config_json else make_view(prepared)
        run_experts_of_any_width(view)
        view_id = self._models.add_view(view, work.model_id)
        opened = work_pb2.SubnetOpened(model_id=view_id, parameters=count_parameters(view))
        return operation_pb2.Succeeded(subnet_opened=opened), {}


def _prepare(model: Any, work: work_pb2.CutModel | work_pb2.OpenSubnet, operation: Operation) -> PreparedChild:
    tensors = [tensor_slice(tensor) for tensor in work.tensors]
    sets = read_index_sets(operation.feed)
    if work.config_json:
        if work.modules:
            raise ShimError(
                Reason.INVALID_REQUEST, "a child has a config or changed modules, not both", "leave one of them out"
            )
        config = parse_object(work.config_json, "config_json", Reason.INVALID_REQUEST)
        check_fetches_nothing(config, "config_json", Reason.INVALID_REQUEST)
        prepared = prepare_child(model, work.config_json, tensors, sets)
    else:
        prepared = prepare_resized(model, sizes_of(work.modules), tensors, sets)
    operation.ticker("cutting", "tensors")(0, len(tensors))
    return prepared
