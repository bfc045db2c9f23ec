"""torch's names in the files of a torch_dist folder: element types, and the classes that its pickles may hold."""

from collections.abc import Mapping

TORCH_DTYPES: Mapping[str, str] = {
    "torch.bool": "BOOL",
    "torch.uint8": "U8",
    "torch.int8": "I8",
    "torch.int16": "I16",
    "torch.int32": "I32",
    "torch.int64": "I64",
    "torch.uint16": "U16",
    "torch.uint32": "U32",
    "torch.uint64": "U64",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float32": "F32",
    "torch.float64": "F64",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e4m3fnuz": "F8_E4M3FNUZ",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.float8_e5m2fnuz": "F8_E5M2FNUZ",
    "torch.float8_e8m0fnu": "F8_E8M0",
}

STORAGE_DTYPES: Mapping[str, str] = {
    "torch.BoolStorage": "BOOL",
    "torch.ByteStorage": "U8",
    "torch.CharStorage": "I8",
    "torch.ShortStorage": "I16",
    "torch.IntStorage": "I32",
    "torch.LongStorage": "I64",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.FloatStorage": "F32",
    "torch.DoubleStorage": "F64",
}
"""The storage classes by which torch.save names the element types that it has had for long."""

_EVERYWHERE = {"collections.OrderedDict", "torch.Size", *TORCH_DTYPES}

TENSOR_CLASSES = frozenset(
    {
        *_EVERYWHERE,
        *STORAGE_DTYPES,
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch.storage.UntypedStorage",
    }
)
"""The classes in what torch.save makes of a tensor."""

METADATA = "torch.distributed.checkpoint.metadata"
STORAGE_INFO = "torch.distributed.checkpoint.filesystem._StorageInfo"
_PLANNER = "torch.distributed.checkpoint.planner"
_OLDER_PROPERTIES = "torch.distributed._shard.sharded_tensor.metadata"

_ENUMS = "megatron.core.transformer.enums"

COMMON_CLASSES = frozenset(
    {
        *TENSOR_CLASSES,
        "argparse.Namespace",
        "types.SimpleNamespace",
        *(f"megatron.core.enums.{name}" for name in ("Fp4Recipe", "Fp8Recipe", "ModelType")),
        *(f"{_ENUMS}.{name}" for name in ("AttnBackend", "AttnMaskType", "AttnType")),
        *(f"{_ENUMS}.{name}" for name in ("CudaGraphScope", "LayerType", "ModelType")),
        "megatron.core.transformer.pipeline_parallel_layer_layout.PipelineParallelLayerLayout",
        *(f"megatron.core.rerun_state_machine.{name}" for name in ("RerunDiagnostic", "RerunMode", "RerunState")),
        "torch.device",
        "signal.Signals",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        "__builtin__.getattr",
        "__builtin__.set",
        "_codecs.encode",
    }
)
"""The classes in a common.pt, in the spelling of protocol 2."""

METADATA_CLASSES = frozenset(
    {
        *_EVERYWHERE,
        f"{METADATA}.Metadata",
        f"{METADATA}.MetadataIndex",
        f"{METADATA}.StorageMeta",
        f"{METADATA}.TensorProperties",
        f"{METADATA}._MEM_FORMAT_ENCODING",
        f"{METADATA}.BytesStorageMetadata",
        f"{METADATA}.ChunkStorageMetadata",
        f"{METADATA}.TensorStorageMetadata",
        STORAGE_INFO,
        "torch.distributed.checkpoint.filesystem._StoragePrefix",
        *(f"{_PLANNER}.{name}" for name in ("BytesIOWriteData", "SavePlan", "TensorWriteData", "WriteItem")),
        f"{_PLANNER}.WriteItemType",
        f"{_OLDER_PROPERTIES}.TensorProperties",
        f"{_OLDER_PROPERTIES}.MEM_FORMAT_ENCODING",
        "torch.serialization._get_layout",
        "torch.strided",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        "builtins.getattr",  # how Python 3.11.0 to 3.11.3 pickle a member of an enumeration
    }
)
"""The classes in a .metadata file, of torch 2.1 and later."""
