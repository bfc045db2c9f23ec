import type { Dtype } from "../../tensor.js";

/** torch's names of element types. */
export const TORCH_DTYPES: Readonly<Record<string, Dtype>> = {
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
};

/** The element types of the storage classes by which torch.save names those that it has had for long. */
export const STORAGE_DTYPES: Readonly<Record<string, Dtype>> = {
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
};

const EVERYWHERE = ["collections.OrderedDict", "torch.Size", ...Object.keys(TORCH_DTYPES)];

/** The classes in what torch.save makes of a tensor. */
export const TENSOR_CLASSES: ReadonlySet<string> = new Set([
  ...EVERYWHERE,
  ...Object.keys(STORAGE_DTYPES),
  "torch._utils._rebuild_tensor_v2",
  "torch._utils._rebuild_tensor_v3",
  "torch.storage.UntypedStorage",
]);

const CHECKPOINT = "torch.distributed.checkpoint";
const OLDER_PROPERTIES = "torch.distributed._shard.sharded_tensor.metadata";

/** The classes in a .metadata file, of torch 2.1 and later. */
export const METADATA_CLASSES: ReadonlySet<string> = new Set([
  ...EVERYWHERE,
  ...["Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "_MEM_FORMAT_ENCODING"].map(
    (name) => `${CHECKPOINT}.metadata.${name}`,
  ),
  ...["BytesStorageMetadata", "ChunkStorageMetadata", "TensorStorageMetadata"].map((name) => `${CHECKPOINT}.metadata.${name}`),
  ...["_StorageInfo", "_StoragePrefix"].map((name) => `${CHECKPOINT}.filesystem.${name}`),
  ...["BytesIOWriteData", "SavePlan", "TensorWriteData", "WriteItem", "WriteItemType"].map((name) => `${CHECKPOINT}.planner.${name}`),
  ...["TensorProperties", "MEM_FORMAT_ENCODING"].map((name) => `${OLDER_PROPERTIES}.${name}`),
  "torch.serialization._get_layout",
  "torch.strided",
  "pathlib.Path",
  "pathlib.PosixPath",
  "pathlib._local.PosixPath",
  // How Python 3.11.0 to 3.11.3 pickle a member of an enumeration.
  "builtins.getattr",
]);

/** The classes in a common.pt, of which only the arguments of the training script matter. */
export const COMMON_CLASSES: ReadonlySet<string> = new Set([
  ...TENSOR_CLASSES,
  "argparse.Namespace",
  "types.SimpleNamespace",
  "megatron.core.enums.Fp4Recipe",
  "megatron.core.enums.Fp8Recipe",
  "megatron.core.enums.ModelType",
  ...["AttnBackend", "AttnMaskType", "AttnType", "CudaGraphScope", "LayerType", "ModelType"].map(
    (name) => `megatron.core.transformer.enums.${name}`,
  ),
  "megatron.core.transformer.pipeline_parallel_layer_layout.PipelineParallelLayerLayout",
  ...["RerunDiagnostic", "RerunMode", "RerunState"].map((name) => `megatron.core.rerun_state_machine.${name}`),
  "torch.device",
  "signal.Signals",
  "pathlib.PosixPath",
  "pathlib._local.PosixPath",
  // How protocol 2, which torch.save writes, spells Python's own.
  "__builtin__.getattr",
  "__builtin__.set",
  "_codecs.encode",
]);
