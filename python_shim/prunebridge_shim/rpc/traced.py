"""The facts of a traced network, for the wire."""

from collections.abc import Mapping

from torch import nn

from prunebridge_shim.gen.prunebridge.v1 import tensor_pb2, work_pb2
from prunebridge_shim.models.dtypes import spelling_of
from prunebridge_shim.networks.facts import Axis, ChannelGroup, NetworkFacts, NetworkTensor, Whole
from prunebridge_shim.subnet.child import stored_tensors
from prunebridge_shim.tensors import HostTensor


def network_traced(facts: NetworkFacts, network: nn.Module) -> work_pb2.NetworkTraced:
    """Says what tracing a network found, but for importances."""
    dtypes = {name: spelling_of(tensor.dtype) for name, tensor in stored_tensors(network).items()}
    return work_pb2.NetworkTraced(
        groups=map(_group, facts.groups),
        tensors=[_tensor(one, dtypes[one.name]) for one in facts.tensors],
        operations=[
            work_pb2.NetworkOperation(module=one.module, factor=one.factor, axes=map(_axis, one.axes))
            for one in facts.operations
        ],
        layers=[
            work_pb2.NetworkLayer(
                module=one.module, attributes={name: _axis(axis) for name, axis in one.attributes.items()}
            )
            for one in facts.layers
        ],
    )


def importances(facts: NetworkFacts) -> Mapping[str, HostTensor]:
    """The importances of each group's channels, F64 [channels]."""
    return {f"importance.{number}": HostTensor("F64", group.importance) for number, group in enumerate(facts.groups)}


def _group(group: ChannelGroup) -> work_pb2.ChannelGroup:
    outputs = [
        work_pb2.OutputModule(module=one.module, kind=one.kind, attribute=one.attribute) for one in group.outputs
    ]
    return work_pb2.ChannelGroup(outputs=outputs, channels=group.channels, fixed=group.fixed, sections=group.sections)


def _tensor(tensor: NetworkTensor, dtype: str) -> work_pb2.NetworkTensor:
    info = tensor_pb2.TensorInfo(name=tensor.name, dtype=f"DTYPE_{dtype}", shape=tensor.shape)
    return work_pb2.NetworkTensor(
        info=info, axes=map(_axis, tensor.axes), is_buffer=tensor.is_buffer, blocks=tensor.blocks
    )


def _axis(axis: Axis) -> work_pb2.NetworkAxis:
    return work_pb2.NetworkAxis(
        parts=[
            work_pb2.AxisPart(size=part.size)
            if isinstance(part, Whole)
            else work_pb2.AxisPart(group=part.group, begin=part.begin, end=part.end, repeat=part.repeat)
            for part in axis
        ]
    )
