"""Calibrates normalisation layers by batches of a feed or of Python. Imports torch."""

from torch import nn

from prunebridge_shim.entry_points import EntryPoints, blaming
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.gen.prunebridge.v1 import work_pb2
from prunebridge_shim.networks.arguments import given_arguments, network_inputs
from prunebridge_shim.networks.norms import Calibrated, calibrate_norms
from prunebridge_shim.rpc.feeds import Feed
from prunebridge_shim.rpc.operations import Operation
from prunebridge_shim.rpc.python_batches import PythonBatches
from prunebridge_shim.rpc.requests import brings_batches


def calibrate(
    network: nn.Module, work: work_pb2.CalibrateNorms, operation: Operation, entry_points: EntryPoints
) -> Calibrated:
    """Runs a network on what a request brings; raises as `calibrate_norms`, and as what brings the batches."""
    tick = operation.ticker("calibrating", "batches")
    if not brings_batches(work):
        done = calibrate_norms(network, lambda one: _run_feed(one, operation.feed), tick)
        if not done.layers:
            for _ in operation.feed:  # its sender waits for that
                tick(0, 0)
        return done
    if work.WhichOneof("python") == "data":
        return calibrate_norms(network, lambda one: _run_data(one, work.data, entry_points), tick)
    function = entry_points.find(work.forward_loop)

    def loop(one: nn.Module) -> None:
        with blaming(work.forward_loop):
            function(one)

    return calibrate_norms(network, loop, tick)


def _run_feed(network: nn.Module, feed: Feed) -> None:
    for ask, arguments in network_inputs(feed, network):
        if ask.returns != "nothing":
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"batch {arguments.batch} asks for {ask.returns}, and calibrating gives nothing back",
            )
        arguments.run(network)


def _run_data(network: nn.Module, data: work_pb2.PythonData, entry_points: EntryPoints) -> None:
    batches = PythonBatches(data, entry_points)
    # Arguments that the network cannot run are of this function's making.
    with blaming(batches.author):
        for index, (_, given) in enumerate(batches):
            given_arguments(network, given, index).run(network)
