"""Work on networks of any kind. Imports torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import operation_pb2, work_pb2
from prunebridge_shim.models.store import ModelStore, count_parameters, device_of, dtype_of, pick_device
from prunebridge_shim.networks.arguments import named_arguments
from prunebridge_shim.networks.configs import find_difference
from prunebridge_shim.networks.documents import parse_object
from prunebridge_shim.networks.opening import NetworkOpener
from prunebridge_shim.networks.saving import NetworkSave, save_network
from prunebridge_shim.rpc.norms_work import calibrate
from prunebridge_shim.rpc.operations import Operation
from prunebridge_shim.rpc.requests import read_only_batch
from prunebridge_shim.rpc.traced import importances, network_traced
from prunebridge_shim.rpc.worker import Outcome, sliced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class NetworkWork:
    """What can be done with networks of any kind. `work` is the message in the request's oneof."""

    def __init__(self, models: ModelStore, entry_points: EntryPoints) -> None:
        self._models = models
        self._entry_points = entry_points
        self.kinds: Mapping[str, Callable[[Any, Operation], Outcome]] = {
            "open_network": self._open,
            "trace_network": self._trace,
            "calibrate_norms": self._calibrate,
            "save_network": self._save,
            "check_config": self._check_config,
        }

    def _open(self, work: work_pb2.OpenNetwork, operation: Operation) -> Outcome:
        tick = operation.ticker("loading", "models")
        tick(0, 1)
        network = _open_source(work, NetworkOpener(self._entry_points, pick_device(work.device), work.dtype))
        tick(1, 1)
        opened = work_pb2.ModelOpened(
            model_id=self._models.add_network(network),
            device=str(device_of(network)),
            dtype=str(dtype_of(network)).removeprefix("torch."),
            parameters=count_parameters(network),
        )
        return operation_pb2.Succeeded(model_opened=opened), {}

    def _trace(self, work: work_pb2.TraceNetwork, operation: Operation) -> Outcome:
        # Needs torch-pruning, which nothing else does.
        from prunebridge_shim.networks.trace import trace

        network = self._models.get(work.model_id)
        batch = read_only_batch(operation.feed, "the dummy input is one")
        arguments = named_arguments(network, batch, 0)
        facts = trace(network, arguments.positional, arguments.named, operation.ticker("tracing", "groups"))
        return operation_pb2.Succeeded(network_traced=network_traced(facts, network)), importances(facts)

    def _calibrate(self, work: work_pb2.CalibrateNorms, operation: Operation) -> Outcome:
        done = calibrate(self._models.get(work.model_id), work, operation, self._entry_points)
        result = work_pb2.NormsCalibrated(batches=done.batches, layers=done.layers)
        return operation_pb2.Succeeded(norms_calibrated=result), {}

    def _save(self, work: work_pb2.SaveNetwork, operation: Operation) -> Outcome:
        save = NetworkSave(Path(work.job_dir), flush=not work.skip_flush, sha256=work.sha256)
        return sliced(save_network(self._models.get(work.model_id), save, operation.ticker("saving", "bytes"))), {}

    def _check_config(self, work: work_pb2.CheckConfig, _operation: Operation) -> Outcome:
        config = parse_object(work.config_json, "config_json", Reason.INVALID_REQUEST)
        difference = find_difference(self._models.get(work.model_id), config)
        return operation_pb2.Succeeded(config_checked=work_pb2.ConfigChecked(difference=difference)), {}


def _open_source(work: work_pb2.OpenNetwork, opener: NetworkOpener) -> nn.Module:
    source = work.WhichOneof("source")
    if source == "built":
        kwargs = parse_object(work.built.kwargs_json or "{}", "kwargs_json", Reason.INVALID_REQUEST)
        weights = Path(work.built.weights_path) if work.built.weights_path else None
        return opener.built(work.built.entrypoint, kwargs, weights)
    if source == "checkpoint_dir":
        return opener.checkpoint(work.checkpoint_dir)
    if source == "pruned_dir":
        return opener.pruned(Path(work.pruned_dir))
    raise ShimError(Reason.INVALID_REQUEST, "open_network names no source", "give built, checkpoint_dir or pruned_dir")
