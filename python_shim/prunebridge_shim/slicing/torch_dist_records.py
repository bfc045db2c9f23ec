"""What torch's own classes say of tensors in a torch_dist folder, to be written."""

import math
from dataclasses import dataclass, field

from prunebridge_shim.slicing.torch_dist_names import METADATA, STORAGE_DTYPES, TORCH_DTYPES
from prunebridge_shim.slicing.torch_dist_pickle import Persistent
from prunebridge_shim.slicing.torch_dist_pickling import Made, named, write_pickle
from prunebridge_shim.tensors import byte_length

_STORAGES = {dtype: name for name, dtype in STORAGE_DTYPES.items()}
_DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


@dataclass(frozen=True)
class Box:
    """Part of a tensor: where it begins along each axis, and its sizes."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass
class DescribedTensor:
    """A tensor: its element type, as safetensors spells it, its shape, and as keys the boxes written so far."""

    dtype: str
    shape: tuple[int, ...]
    chunks: dict[Box, None] = field(default_factory=dict)


def tensor_pickle(dtype: str, sizes: tuple[int, ...]) -> bytes:
    """The call that makes a row-major tensor of the storage `0`, as torch.save writes it."""
    strides = tuple(math.prod(sizes[axis + 1 :]) for axis in range(len(sizes)))
    hooks = named("collections.OrderedDict")()
    count = math.prod(sizes)
    if dtype in _STORAGES:
        storage = Persistent(("storage", named(_STORAGES[dtype]), "0", "cpu", count))
        return write_pickle(named("torch._utils._rebuild_tensor_v2")(storage, 0, sizes, strides, False, hooks))
    storage = Persistent(("storage", named("torch.storage.UntypedStorage"), "0", "cpu", byte_length(dtype, sizes)))
    rebuild = named("torch._utils._rebuild_tensor_v3")
    return write_pickle(rebuild(storage, 0, sizes, strides, False, hooks, named(_DTYPES[dtype])))


def tensor_metadata(tensor: DescribedTensor) -> Made:
    """What .metadata says of a tensor."""
    layout = named("torch.serialization._get_layout")("torch.strided")
    contiguous = named(f"{METADATA}._MEM_FORMAT_ENCODING")(0)
    state = (named(_DTYPES[tensor.dtype]), layout, False, contiguous, False)
    properties = Made(named(f"{METADATA}.TensorProperties"), (), state, called=False)
    chunk = named(f"{METADATA}.ChunkStorageMetadata")
    return named(f"{METADATA}.TensorStorageMetadata").holding(
        properties=properties,
        size=size_of(tensor.shape),
        chunks=[chunk.holding(offsets=size_of(box.offsets), sizes=size_of(box.sizes)) for box in tensor.chunks],
    )


def size_of(sizes: tuple[int, ...] | None) -> Made | None:
    """A torch.Size."""
    return None if sizes is None else named("torch.Size")(sizes)
