"""A traced network's child as a client asks for it: slices by index sets, and the sizes of modules."""

import numpy as np

from prunebridge_shim.gen.prunebridge.v1 import work_pb2


class Plan:
    """What a client makes of a network's facts and the channels of each group that stay.

    Attributes:
        sets: The index sets by id, for the feed.
        tensors: A slice of each tensor.
        modules: The attributes that count channels.
    """

    def __init__(self, traced, kept):
        self._kept = kept
        self.sets = {}
        self.tensors = [self._slice(one) for one in traced.tensors]
        self.modules = [
            work_pb2.ModuleSizes(
                module=layer.module, attributes={name: size(axis, kept) for name, axis in layer.attributes.items()}
            )
            for layer in traced.layers
        ]

    def _slice(self, tensor):
        axes = [positions(axis, self._kept) for axis in tensor.axes]
        part = work_pb2.TensorPart(source=tensor.info)
        if tensor.blocks == 1:
            part.axes.extend(self._set_id(found) for found in axes)
        else:
            rows, columns = tensor.info.shape[0] // tensor.blocks, tensor.info.shape[1]
            part.axes.append(self._set_id(axes[0]))
            for row in axes[0]:
                block = row // rows
                across = [at - block * columns for at in axes[1] if at // columns == block]
                part.blocks.append(work_pb2.BlockAxes(axes=[self._set_id(across), *map(self._set_id, axes[2:])]))
        return work_pb2.TensorSlice(name=tensor.info.name, parts=[part])

    def _set_id(self, found):
        name = f"set-{hash(tuple(found))}"
        self.sets[name] = np.array(found, np.int64)
        return name


def positions(axis, kept):
    found, at = [], 0
    for part in axis.parts:
        if not part.HasField("group"):
            found.extend(range(at, at + part.size))
            at += part.size
            continue
        for channel in kept[part.group]:
            if part.begin <= channel < part.end:
                first = at + (channel - part.begin) * part.repeat
                found.extend(range(first, first + part.repeat))
        at += (part.end - part.begin) * part.repeat
    return found


def size(axis, kept):
    return len(positions(axis, kept))
