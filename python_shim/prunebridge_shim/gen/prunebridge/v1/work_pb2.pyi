from prunebridge_shim.gen.prunebridge.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BuiltInLoss(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUILT_IN_LOSS_UNSPECIFIED: _ClassVar[BuiltInLoss]
    BUILT_IN_LOSS_CAUSAL_LM: _ClassVar[BuiltInLoss]
    BUILT_IN_LOSS_MASKED_LM: _ClassVar[BuiltInLoss]
    BUILT_IN_LOSS_SEQUENCE_CLASSIFICATION: _ClassVar[BuiltInLoss]
    BUILT_IN_LOSS_MSE: _ClassVar[BuiltInLoss]

class HookSide(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HOOK_SIDE_UNSPECIFIED: _ClassVar[HookSide]
    HOOK_SIDE_INPUT: _ClassVar[HookSide]
    HOOK_SIDE_OUTPUT: _ClassVar[HookSide]

class Reduction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REDUCTION_UNSPECIFIED: _ClassVar[Reduction]
    REDUCTION_MEAN_ABS_SQUARE: _ClassVar[Reduction]
    REDUCTION_COSINE_DISTANCE: _ClassVar[Reduction]
    REDUCTION_ROUTED_MEAN_ABS_SQUARE: _ClassVar[Reduction]
    REDUCTION_ROUTED_OUTPUT_NORM: _ClassVar[Reduction]
    REDUCTION_ROUTED_TOKENS: _ClassVar[Reduction]
BUILT_IN_LOSS_UNSPECIFIED: BuiltInLoss
BUILT_IN_LOSS_CAUSAL_LM: BuiltInLoss
BUILT_IN_LOSS_MASKED_LM: BuiltInLoss
BUILT_IN_LOSS_SEQUENCE_CLASSIFICATION: BuiltInLoss
BUILT_IN_LOSS_MSE: BuiltInLoss
HOOK_SIDE_UNSPECIFIED: HookSide
HOOK_SIDE_INPUT: HookSide
HOOK_SIDE_OUTPUT: HookSide
REDUCTION_UNSPECIFIED: Reduction
REDUCTION_MEAN_ABS_SQUARE: Reduction
REDUCTION_COSINE_DISTANCE: Reduction
REDUCTION_ROUTED_MEAN_ABS_SQUARE: Reduction
REDUCTION_ROUTED_OUTPUT_NORM: Reduction
REDUCTION_ROUTED_TOKENS: Reduction

class OpenModel(_message.Message):
    __slots__ = ("path", "device", "dtype", "unread_tensors")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    UNREAD_TENSORS_FIELD_NUMBER: _ClassVar[int]
    path: str
    device: str
    dtype: str
    unread_tensors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, path: _Optional[str] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., unread_tensors: _Optional[_Iterable[str]] = ...) -> None: ...

class OpenNetwork(_message.Message):
    __slots__ = ("built", "checkpoint_dir", "pruned_dir", "device", "dtype")
    BUILT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_DIR_FIELD_NUMBER: _ClassVar[int]
    PRUNED_DIR_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    built: BuiltNetwork
    checkpoint_dir: str
    pruned_dir: str
    device: str
    dtype: str
    def __init__(self, built: _Optional[_Union[BuiltNetwork, _Mapping]] = ..., checkpoint_dir: _Optional[str] = ..., pruned_dir: _Optional[str] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ...) -> None: ...

class BuiltNetwork(_message.Message):
    __slots__ = ("entrypoint", "kwargs_json", "weights_path")
    ENTRYPOINT_FIELD_NUMBER: _ClassVar[int]
    KWARGS_JSON_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_PATH_FIELD_NUMBER: _ClassVar[int]
    entrypoint: str
    kwargs_json: str
    weights_path: str
    def __init__(self, entrypoint: _Optional[str] = ..., kwargs_json: _Optional[str] = ..., weights_path: _Optional[str] = ...) -> None: ...

class ModelOpened(_message.Message):
    __slots__ = ("model_id", "device", "dtype", "parameters")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    device: str
    dtype: str
    parameters: int
    def __init__(self, model_id: _Optional[str] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., parameters: _Optional[int] = ...) -> None: ...

class CloseModel(_message.Message):
    __slots__ = ("model_id",)
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    def __init__(self, model_id: _Optional[str] = ...) -> None: ...

class ModelClosed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TraceNetwork(_message.Message):
    __slots__ = ("model_id", "feed_id")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    feed_id: str
    def __init__(self, model_id: _Optional[str] = ..., feed_id: _Optional[str] = ...) -> None: ...

class NetworkTraced(_message.Message):
    __slots__ = ("groups", "tensors", "operations", "layers")
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[ChannelGroup]
    tensors: _containers.RepeatedCompositeFieldContainer[NetworkTensor]
    operations: _containers.RepeatedCompositeFieldContainer[NetworkOperation]
    layers: _containers.RepeatedCompositeFieldContainer[NetworkLayer]
    def __init__(self, groups: _Optional[_Iterable[_Union[ChannelGroup, _Mapping]]] = ..., tensors: _Optional[_Iterable[_Union[NetworkTensor, _Mapping]]] = ..., operations: _Optional[_Iterable[_Union[NetworkOperation, _Mapping]]] = ..., layers: _Optional[_Iterable[_Union[NetworkLayer, _Mapping]]] = ...) -> None: ...

class ChannelGroup(_message.Message):
    __slots__ = ("outputs", "channels", "fixed", "sections")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    SECTIONS_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[OutputModule]
    channels: int
    fixed: bool
    sections: int
    def __init__(self, outputs: _Optional[_Iterable[_Union[OutputModule, _Mapping]]] = ..., channels: _Optional[int] = ..., fixed: bool = ..., sections: _Optional[int] = ...) -> None: ...

class OutputModule(_message.Message):
    __slots__ = ("module", "kind", "attribute")
    MODULE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    module: str
    kind: str
    attribute: str
    def __init__(self, module: _Optional[str] = ..., kind: _Optional[str] = ..., attribute: _Optional[str] = ...) -> None: ...

class AxisPart(_message.Message):
    __slots__ = ("group", "begin", "end", "repeat", "size")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    REPEAT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    group: int
    begin: int
    end: int
    repeat: int
    size: int
    def __init__(self, group: _Optional[int] = ..., begin: _Optional[int] = ..., end: _Optional[int] = ..., repeat: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class NetworkAxis(_message.Message):
    __slots__ = ("parts",)
    PARTS_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[AxisPart]
    def __init__(self, parts: _Optional[_Iterable[_Union[AxisPart, _Mapping]]] = ...) -> None: ...

class NetworkTensor(_message.Message):
    __slots__ = ("info", "axes", "is_buffer", "blocks")
    INFO_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    IS_BUFFER_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    info: _tensor_pb2.TensorInfo
    axes: _containers.RepeatedCompositeFieldContainer[NetworkAxis]
    is_buffer: bool
    blocks: int
    def __init__(self, info: _Optional[_Union[_tensor_pb2.TensorInfo, _Mapping]] = ..., axes: _Optional[_Iterable[_Union[NetworkAxis, _Mapping]]] = ..., is_buffer: bool = ..., blocks: _Optional[int] = ...) -> None: ...

class NetworkOperation(_message.Message):
    __slots__ = ("module", "factor", "axes")
    MODULE_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    module: str
    factor: float
    axes: _containers.RepeatedCompositeFieldContainer[NetworkAxis]
    def __init__(self, module: _Optional[str] = ..., factor: _Optional[float] = ..., axes: _Optional[_Iterable[_Union[NetworkAxis, _Mapping]]] = ...) -> None: ...

class NetworkLayer(_message.Message):
    __slots__ = ("module", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: NetworkAxis
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[NetworkAxis, _Mapping]] = ...) -> None: ...
    MODULE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    module: str
    attributes: _containers.MessageMap[str, NetworkAxis]
    def __init__(self, module: _Optional[str] = ..., attributes: _Optional[_Mapping[str, NetworkAxis]] = ...) -> None: ...

class CalibrateNorms(_message.Message):
    __slots__ = ("model_id", "feed_id", "data", "forward_loop")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORWARD_LOOP_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    feed_id: str
    data: PythonData
    forward_loop: str
    def __init__(self, model_id: _Optional[str] = ..., feed_id: _Optional[str] = ..., data: _Optional[_Union[PythonData, _Mapping]] = ..., forward_loop: _Optional[str] = ...) -> None: ...

class NormsCalibrated(_message.Message):
    __slots__ = ("batches", "layers")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    batches: int
    layers: int
    def __init__(self, batches: _Optional[int] = ..., layers: _Optional[int] = ...) -> None: ...

class SaveNetwork(_message.Message):
    __slots__ = ("model_id", "job_dir", "skip_flush", "sha256")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_DIR_FIELD_NUMBER: _ClassVar[int]
    SKIP_FLUSH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    job_dir: str
    skip_flush: bool
    sha256: bool
    def __init__(self, model_id: _Optional[str] = ..., job_dir: _Optional[str] = ..., skip_flush: bool = ..., sha256: bool = ...) -> None: ...

class CheckConfig(_message.Message):
    __slots__ = ("model_id", "config_json")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    config_json: str
    def __init__(self, model_id: _Optional[str] = ..., config_json: _Optional[str] = ...) -> None: ...

class ConfigChecked(_message.Message):
    __slots__ = ("difference",)
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    difference: str
    def __init__(self, difference: _Optional[str] = ...) -> None: ...

class CollectGradients(_message.Message):
    __slots__ = ("model_id", "feed_id", "masks", "data", "built_in", "loss_func", "client")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    BUILT_IN_FIELD_NUMBER: _ClassVar[int]
    LOSS_FUNC_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    feed_id: str
    masks: _containers.RepeatedCompositeFieldContainer[Mask]
    data: PythonData
    built_in: BuiltInLoss
    loss_func: str
    client: bool
    def __init__(self, model_id: _Optional[str] = ..., feed_id: _Optional[str] = ..., masks: _Optional[_Iterable[_Union[Mask, _Mapping]]] = ..., data: _Optional[_Union[PythonData, _Mapping]] = ..., built_in: _Optional[_Union[BuiltInLoss, str]] = ..., loss_func: _Optional[str] = ..., client: bool = ...) -> None: ...

class Mask(_message.Message):
    __slots__ = ("key", "module", "side", "units")
    KEY_FIELD_NUMBER: _ClassVar[int]
    MODULE_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    key: str
    module: str
    side: HookSide
    units: int
    def __init__(self, key: _Optional[str] = ..., module: _Optional[str] = ..., side: _Optional[_Union[HookSide, str]] = ..., units: _Optional[int] = ...) -> None: ...

class GradientsCollected(_message.Message):
    __slots__ = ("batches", "samples", "tokens", "loss", "pass_seconds")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    PASS_SECONDS_FIELD_NUMBER: _ClassVar[int]
    batches: int
    samples: int
    tokens: int
    loss: float
    pass_seconds: float
    def __init__(self, batches: _Optional[int] = ..., samples: _Optional[int] = ..., tokens: _Optional[int] = ..., loss: _Optional[float] = ..., pass_seconds: _Optional[float] = ...) -> None: ...

class Tokenize(_message.Message):
    __slots__ = ("path", "feed_id")
    PATH_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    path: str
    feed_id: str
    def __init__(self, path: _Optional[str] = ..., feed_id: _Optional[str] = ...) -> None: ...

class Tokenized(_message.Message):
    __slots__ = ("texts", "tokens")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    texts: int
    tokens: int
    def __init__(self, texts: _Optional[int] = ..., tokens: _Optional[int] = ...) -> None: ...

class HookPoint(_message.Message):
    __slots__ = ("key", "module", "side", "reduction")
    KEY_FIELD_NUMBER: _ClassVar[int]
    MODULE_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    key: str
    module: str
    side: HookSide
    reduction: Reduction
    def __init__(self, key: _Optional[str] = ..., module: _Optional[str] = ..., side: _Optional[_Union[HookSide, str]] = ..., reduction: _Optional[_Union[Reduction, str]] = ...) -> None: ...

class Collect(_message.Message):
    __slots__ = ("model_id", "feed_id", "hooks", "data", "forward_loop")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    HOOKS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORWARD_LOOP_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    feed_id: str
    hooks: _containers.RepeatedCompositeFieldContainer[HookPoint]
    data: PythonData
    forward_loop: str
    def __init__(self, model_id: _Optional[str] = ..., feed_id: _Optional[str] = ..., hooks: _Optional[_Iterable[_Union[HookPoint, _Mapping]]] = ..., data: _Optional[_Union[PythonData, _Mapping]] = ..., forward_loop: _Optional[str] = ...) -> None: ...

class PythonData(_message.Message):
    __slots__ = ("data_loader", "collect_func", "max_batches")
    DATA_LOADER_FIELD_NUMBER: _ClassVar[int]
    COLLECT_FUNC_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCHES_FIELD_NUMBER: _ClassVar[int]
    data_loader: str
    collect_func: str
    max_batches: int
    def __init__(self, data_loader: _Optional[str] = ..., collect_func: _Optional[str] = ..., max_batches: _Optional[int] = ...) -> None: ...

class Collected(_message.Message):
    __slots__ = ("batches", "samples", "tokens", "forward_seconds")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    batches: int
    samples: int
    tokens: int
    forward_seconds: float
    def __init__(self, batches: _Optional[int] = ..., samples: _Optional[int] = ..., tokens: _Optional[int] = ..., forward_seconds: _Optional[float] = ...) -> None: ...

class EvaluateLoss(_message.Message):
    __slots__ = ("model_id", "feed_id")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    feed_id: str
    def __init__(self, model_id: _Optional[str] = ..., feed_id: _Optional[str] = ...) -> None: ...

class LossEvaluated(_message.Message):
    __slots__ = ("loss", "tokens")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    loss: float
    tokens: int
    def __init__(self, loss: _Optional[float] = ..., tokens: _Optional[int] = ...) -> None: ...

class Forward(_message.Message):
    __slots__ = ("model_id", "feed_id")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    feed_id: str
    def __init__(self, model_id: _Optional[str] = ..., feed_id: _Optional[str] = ...) -> None: ...

class Forwarded(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: int
    def __init__(self, batches: _Optional[int] = ...) -> None: ...

class CutModel(_message.Message):
    __slots__ = ("model_id", "feed_id", "tensors", "config_json", "modules")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    feed_id: str
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSlice]
    config_json: str
    modules: _containers.RepeatedCompositeFieldContainer[ModuleSizes]
    def __init__(self, model_id: _Optional[str] = ..., feed_id: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[TensorSlice, _Mapping]]] = ..., config_json: _Optional[str] = ..., modules: _Optional[_Iterable[_Union[ModuleSizes, _Mapping]]] = ...) -> None: ...

class ModuleSizes(_message.Message):
    __slots__ = ("module", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODULE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    module: str
    attributes: _containers.ScalarMap[str, int]
    def __init__(self, module: _Optional[str] = ..., attributes: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ModelCut(_message.Message):
    __slots__ = ("parameters",)
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    parameters: int
    def __init__(self, parameters: _Optional[int] = ...) -> None: ...

class Slice(_message.Message):
    __slots__ = ("source_dir", "job_dir", "feed_id", "shards", "skip_flush", "sha256", "torch_dist")
    SOURCE_DIR_FIELD_NUMBER: _ClassVar[int]
    JOB_DIR_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SKIP_FLUSH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    TORCH_DIST_FIELD_NUMBER: _ClassVar[int]
    source_dir: str
    job_dir: str
    feed_id: str
    shards: _containers.RepeatedCompositeFieldContainer[OutputShard]
    skip_flush: bool
    sha256: bool
    torch_dist: TorchDistSave
    def __init__(self, source_dir: _Optional[str] = ..., job_dir: _Optional[str] = ..., feed_id: _Optional[str] = ..., shards: _Optional[_Iterable[_Union[OutputShard, _Mapping]]] = ..., skip_flush: bool = ..., sha256: bool = ..., torch_dist: _Optional[_Union[TorchDistSave, _Mapping]] = ...) -> None: ...

class TorchDistSave(_message.Message):
    __slots__ = ("folder", "empty_objects", "common")
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    EMPTY_OBJECTS_FIELD_NUMBER: _ClassVar[int]
    COMMON_FIELD_NUMBER: _ClassVar[int]
    folder: str
    empty_objects: _containers.RepeatedScalarFieldContainer[str]
    common: CommonEdit
    def __init__(self, folder: _Optional[str] = ..., empty_objects: _Optional[_Iterable[str]] = ..., common: _Optional[_Union[CommonEdit, _Mapping]] = ...) -> None: ...

class CommonEdit(_message.Message):
    __slots__ = ("arguments_json", "left_out")
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    arguments_json: str
    left_out: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, arguments_json: _Optional[str] = ..., left_out: _Optional[_Iterable[str]] = ...) -> None: ...

class OutputShard(_message.Message):
    __slots__ = ("file", "metadata", "tensors")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FILE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    file: str
    metadata: _containers.ScalarMap[str, str]
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSlice]
    def __init__(self, file: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., tensors: _Optional[_Iterable[_Union[TensorSlice, _Mapping]]] = ...) -> None: ...

class OpenSubnet(_message.Message):
    __slots__ = ("model_id", "feed_id", "tensors", "config_json", "units", "modules")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    feed_id: str
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSlice]
    config_json: str
    units: _containers.RepeatedScalarFieldContainer[str]
    modules: _containers.RepeatedCompositeFieldContainer[ModuleSizes]
    def __init__(self, model_id: _Optional[str] = ..., feed_id: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[TensorSlice, _Mapping]]] = ..., config_json: _Optional[str] = ..., units: _Optional[_Iterable[str]] = ..., modules: _Optional[_Iterable[_Union[ModuleSizes, _Mapping]]] = ...) -> None: ...

class SubnetOpened(_message.Message):
    __slots__ = ("model_id", "parameters")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    parameters: int
    def __init__(self, model_id: _Optional[str] = ..., parameters: _Optional[int] = ...) -> None: ...

class ScoreModel(_message.Message):
    __slots__ = ("model_id", "score_func")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FUNC_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    score_func: str
    def __init__(self, model_id: _Optional[str] = ..., score_func: _Optional[str] = ...) -> None: ...

class ModelScored(_message.Message):
    __slots__ = ("score",)
    SCORE_FIELD_NUMBER: _ClassVar[int]
    score: float
    def __init__(self, score: _Optional[float] = ...) -> None: ...

class TensorSlice(_message.Message):
    __slots__ = ("name", "parts", "index", "outer_shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    OUTER_SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    parts: _containers.RepeatedCompositeFieldContainer[TensorPart]
    index: _containers.RepeatedScalarFieldContainer[int]
    outer_shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[TensorPart, _Mapping]]] = ..., index: _Optional[_Iterable[int]] = ..., outer_shape: _Optional[_Iterable[int]] = ...) -> None: ...

class TensorPart(_message.Message):
    __slots__ = ("source_file", "source", "axes", "blocks", "index", "shift")
    SOURCE_FILE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SHIFT_FIELD_NUMBER: _ClassVar[int]
    source_file: str
    source: _tensor_pb2.TensorInfo
    axes: _containers.RepeatedScalarFieldContainer[str]
    blocks: _containers.RepeatedCompositeFieldContainer[BlockAxes]
    index: _containers.RepeatedScalarFieldContainer[int]
    shift: float
    def __init__(self, source_file: _Optional[str] = ..., source: _Optional[_Union[_tensor_pb2.TensorInfo, _Mapping]] = ..., axes: _Optional[_Iterable[str]] = ..., blocks: _Optional[_Iterable[_Union[BlockAxes, _Mapping]]] = ..., index: _Optional[_Iterable[int]] = ..., shift: _Optional[float] = ...) -> None: ...

class BlockAxes(_message.Message):
    __slots__ = ("axes",)
    AXES_FIELD_NUMBER: _ClassVar[int]
    axes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, axes: _Optional[_Iterable[str]] = ...) -> None: ...

class SaveModel(_message.Message):
    __slots__ = ("model_id", "job_dir", "feed_id", "shards", "skip_flush", "sha256")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_DIR_FIELD_NUMBER: _ClassVar[int]
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    SKIP_FLUSH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    job_dir: str
    feed_id: str
    shards: _containers.RepeatedCompositeFieldContainer[OutputShard]
    skip_flush: bool
    sha256: bool
    def __init__(self, model_id: _Optional[str] = ..., job_dir: _Optional[str] = ..., feed_id: _Optional[str] = ..., shards: _Optional[_Iterable[_Union[OutputShard, _Mapping]]] = ..., skip_flush: bool = ..., sha256: bool = ...) -> None: ...

class Sliced(_message.Message):
    __slots__ = ("shards", "found_bytes", "folder_id")
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    FOUND_BYTES_FIELD_NUMBER: _ClassVar[int]
    FOLDER_ID_FIELD_NUMBER: _ClassVar[int]
    shards: _containers.RepeatedCompositeFieldContainer[ShardWritten]
    found_bytes: int
    folder_id: str
    def __init__(self, shards: _Optional[_Iterable[_Union[ShardWritten, _Mapping]]] = ..., found_bytes: _Optional[int] = ..., folder_id: _Optional[str] = ...) -> None: ...

class ShardWritten(_message.Message):
    __slots__ = ("file", "bytes", "crc32", "sha256")
    FILE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    file: str
    bytes: int
    crc32: int
    sha256: bytes
    def __init__(self, file: _Optional[str] = ..., bytes: _Optional[int] = ..., crc32: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...
