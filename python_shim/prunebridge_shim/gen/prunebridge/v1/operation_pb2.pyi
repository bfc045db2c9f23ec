from prunebridge_shim.gen.prunebridge.v1 import error_pb2 as _error_pb2
from prunebridge_shim.gen.prunebridge.v1 import tensor_pb2 as _tensor_pb2
from prunebridge_shim.gen.prunebridge.v1 import work_pb2 as _work_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Returns(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RETURNS_UNSPECIFIED: _ClassVar[Returns]
    RETURNS_LOSS: _ClassVar[Returns]
    RETURNS_LAST_LOGITS: _ClassVar[Returns]
    RETURNS_LOGITS: _ClassVar[Returns]
    RETURNS_OUTPUT: _ClassVar[Returns]
RETURNS_UNSPECIFIED: Returns
RETURNS_LOSS: Returns
RETURNS_LAST_LOGITS: Returns
RETURNS_LOGITS: Returns
RETURNS_OUTPUT: Returns

class StartRequest(_message.Message):
    __slots__ = ("request_id", "open_model", "close_model", "tokenize", "collect", "evaluate_loss", "forward", "cut_model", "slice", "open_subnet", "score_model", "save_model", "open_network", "trace_network", "calibrate_norms", "save_network", "check_config", "collect_gradients")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_MODEL_FIELD_NUMBER: _ClassVar[int]
    CLOSE_MODEL_FIELD_NUMBER: _ClassVar[int]
    TOKENIZE_FIELD_NUMBER: _ClassVar[int]
    COLLECT_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_LOSS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FIELD_NUMBER: _ClassVar[int]
    CUT_MODEL_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    OPEN_SUBNET_FIELD_NUMBER: _ClassVar[int]
    SCORE_MODEL_FIELD_NUMBER: _ClassVar[int]
    SAVE_MODEL_FIELD_NUMBER: _ClassVar[int]
    OPEN_NETWORK_FIELD_NUMBER: _ClassVar[int]
    TRACE_NETWORK_FIELD_NUMBER: _ClassVar[int]
    CALIBRATE_NORMS_FIELD_NUMBER: _ClassVar[int]
    SAVE_NETWORK_FIELD_NUMBER: _ClassVar[int]
    CHECK_CONFIG_FIELD_NUMBER: _ClassVar[int]
    COLLECT_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    open_model: _work_pb2.OpenModel
    close_model: _work_pb2.CloseModel
    tokenize: _work_pb2.Tokenize
    collect: _work_pb2.Collect
    evaluate_loss: _work_pb2.EvaluateLoss
    forward: _work_pb2.Forward
    cut_model: _work_pb2.CutModel
    slice: _work_pb2.Slice
    open_subnet: _work_pb2.OpenSubnet
    score_model: _work_pb2.ScoreModel
    save_model: _work_pb2.SaveModel
    open_network: _work_pb2.OpenNetwork
    trace_network: _work_pb2.TraceNetwork
    calibrate_norms: _work_pb2.CalibrateNorms
    save_network: _work_pb2.SaveNetwork
    check_config: _work_pb2.CheckConfig
    collect_gradients: _work_pb2.CollectGradients
    def __init__(self, request_id: _Optional[str] = ..., open_model: _Optional[_Union[_work_pb2.OpenModel, _Mapping]] = ..., close_model: _Optional[_Union[_work_pb2.CloseModel, _Mapping]] = ..., tokenize: _Optional[_Union[_work_pb2.Tokenize, _Mapping]] = ..., collect: _Optional[_Union[_work_pb2.Collect, _Mapping]] = ..., evaluate_loss: _Optional[_Union[_work_pb2.EvaluateLoss, _Mapping]] = ..., forward: _Optional[_Union[_work_pb2.Forward, _Mapping]] = ..., cut_model: _Optional[_Union[_work_pb2.CutModel, _Mapping]] = ..., slice: _Optional[_Union[_work_pb2.Slice, _Mapping]] = ..., open_subnet: _Optional[_Union[_work_pb2.OpenSubnet, _Mapping]] = ..., score_model: _Optional[_Union[_work_pb2.ScoreModel, _Mapping]] = ..., save_model: _Optional[_Union[_work_pb2.SaveModel, _Mapping]] = ..., open_network: _Optional[_Union[_work_pb2.OpenNetwork, _Mapping]] = ..., trace_network: _Optional[_Union[_work_pb2.TraceNetwork, _Mapping]] = ..., calibrate_norms: _Optional[_Union[_work_pb2.CalibrateNorms, _Mapping]] = ..., save_network: _Optional[_Union[_work_pb2.SaveNetwork, _Mapping]] = ..., check_config: _Optional[_Union[_work_pb2.CheckConfig, _Mapping]] = ..., collect_gradients: _Optional[_Union[_work_pb2.CollectGradients, _Mapping]] = ...) -> None: ...

class StartResponse(_message.Message):
    __slots__ = ("operation_id",)
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    operation_id: str
    def __init__(self, operation_id: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("operation_id", "after_seq")
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQ_FIELD_NUMBER: _ClassVar[int]
    operation_id: str
    after_seq: int
    def __init__(self, operation_id: _Optional[str] = ..., after_seq: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("seq", "progress", "succeeded", "failed")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    seq: int
    progress: Progress
    succeeded: Succeeded
    failed: _error_pb2.ErrorDetail
    def __init__(self, seq: _Optional[int] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., succeeded: _Optional[_Union[Succeeded, _Mapping]] = ..., failed: _Optional[_Union[_error_pb2.ErrorDetail, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("phase", "done", "total", "unit", "eta_seconds")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    ETA_SECONDS_FIELD_NUMBER: _ClassVar[int]
    phase: str
    done: float
    total: float
    unit: str
    eta_seconds: float
    def __init__(self, phase: _Optional[str] = ..., done: _Optional[float] = ..., total: _Optional[float] = ..., unit: _Optional[str] = ..., eta_seconds: _Optional[float] = ...) -> None: ...

class Succeeded(_message.Message):
    __slots__ = ("model_opened", "model_closed", "tokenized", "collected", "loss_evaluated", "forwarded", "model_cut", "sliced", "subnet_opened", "model_scored", "network_traced", "norms_calibrated", "config_checked", "gradients_collected", "tensors")
    MODEL_OPENED_FIELD_NUMBER: _ClassVar[int]
    MODEL_CLOSED_FIELD_NUMBER: _ClassVar[int]
    TOKENIZED_FIELD_NUMBER: _ClassVar[int]
    COLLECTED_FIELD_NUMBER: _ClassVar[int]
    LOSS_EVALUATED_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_FIELD_NUMBER: _ClassVar[int]
    MODEL_CUT_FIELD_NUMBER: _ClassVar[int]
    SLICED_FIELD_NUMBER: _ClassVar[int]
    SUBNET_OPENED_FIELD_NUMBER: _ClassVar[int]
    MODEL_SCORED_FIELD_NUMBER: _ClassVar[int]
    NETWORK_TRACED_FIELD_NUMBER: _ClassVar[int]
    NORMS_CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    CONFIG_CHECKED_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_COLLECTED_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    model_opened: _work_pb2.ModelOpened
    model_closed: _work_pb2.ModelClosed
    tokenized: _work_pb2.Tokenized
    collected: _work_pb2.Collected
    loss_evaluated: _work_pb2.LossEvaluated
    forwarded: _work_pb2.Forwarded
    model_cut: _work_pb2.ModelCut
    sliced: _work_pb2.Sliced
    subnet_opened: _work_pb2.SubnetOpened
    model_scored: _work_pb2.ModelScored
    network_traced: _work_pb2.NetworkTraced
    norms_calibrated: _work_pb2.NormsCalibrated
    config_checked: _work_pb2.ConfigChecked
    gradients_collected: _work_pb2.GradientsCollected
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorInfo]
    def __init__(self, model_opened: _Optional[_Union[_work_pb2.ModelOpened, _Mapping]] = ..., model_closed: _Optional[_Union[_work_pb2.ModelClosed, _Mapping]] = ..., tokenized: _Optional[_Union[_work_pb2.Tokenized, _Mapping]] = ..., collected: _Optional[_Union[_work_pb2.Collected, _Mapping]] = ..., loss_evaluated: _Optional[_Union[_work_pb2.LossEvaluated, _Mapping]] = ..., forwarded: _Optional[_Union[_work_pb2.Forwarded, _Mapping]] = ..., model_cut: _Optional[_Union[_work_pb2.ModelCut, _Mapping]] = ..., sliced: _Optional[_Union[_work_pb2.Sliced, _Mapping]] = ..., subnet_opened: _Optional[_Union[_work_pb2.SubnetOpened, _Mapping]] = ..., model_scored: _Optional[_Union[_work_pb2.ModelScored, _Mapping]] = ..., network_traced: _Optional[_Union[_work_pb2.NetworkTraced, _Mapping]] = ..., norms_calibrated: _Optional[_Union[_work_pb2.NormsCalibrated, _Mapping]] = ..., config_checked: _Optional[_Union[_work_pb2.ConfigChecked, _Mapping]] = ..., gradients_collected: _Optional[_Union[_work_pb2.GradientsCollected, _Mapping]] = ..., tensors: _Optional[_Iterable[_Union[_tensor_pb2.TensorInfo, _Mapping]]] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("operation_id",)
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    operation_id: str
    def __init__(self, operation_id: _Optional[str] = ...) -> None: ...

class CancelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadResultRequest(_message.Message):
    __slots__ = ("operation_id",)
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    operation_id: str
    def __init__(self, operation_id: _Optional[str] = ...) -> None: ...

class ReadResultResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.TensorChunk
    def __init__(self, chunk: _Optional[_Union[_tensor_pb2.TensorChunk, _Mapping]] = ...) -> None: ...

class FeedRequest(_message.Message):
    __slots__ = ("feed_id", "chunk", "batch_end", "feed_end")
    FEED_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    BATCH_END_FIELD_NUMBER: _ClassVar[int]
    FEED_END_FIELD_NUMBER: _ClassVar[int]
    feed_id: str
    chunk: _tensor_pb2.TensorChunk
    batch_end: BatchEnd
    feed_end: FeedEnd
    def __init__(self, feed_id: _Optional[str] = ..., chunk: _Optional[_Union[_tensor_pb2.TensorChunk, _Mapping]] = ..., batch_end: _Optional[_Union[BatchEnd, _Mapping]] = ..., feed_end: _Optional[_Union[FeedEnd, _Mapping]] = ...) -> None: ...

class BatchEnd(_message.Message):
    __slots__ = ("returns",)
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    returns: Returns
    def __init__(self, returns: _Optional[_Union[Returns, str]] = ...) -> None: ...

class FeedEnd(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: int
    def __init__(self, batches: _Optional[int] = ...) -> None: ...

class FeedResponse(_message.Message):
    __slots__ = ("chunk", "answer_end", "feed_taken")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    ANSWER_END_FIELD_NUMBER: _ClassVar[int]
    FEED_TAKEN_FIELD_NUMBER: _ClassVar[int]
    chunk: _tensor_pb2.TensorChunk
    answer_end: AnswerEnd
    feed_taken: FeedTaken
    def __init__(self, chunk: _Optional[_Union[_tensor_pb2.TensorChunk, _Mapping]] = ..., answer_end: _Optional[_Union[AnswerEnd, _Mapping]] = ..., feed_taken: _Optional[_Union[FeedTaken, _Mapping]] = ...) -> None: ...

class AnswerEnd(_message.Message):
    __slots__ = ("batch",)
    BATCH_FIELD_NUMBER: _ClassVar[int]
    batch: int
    def __init__(self, batch: _Optional[int] = ...) -> None: ...

class FeedTaken(_message.Message):
    __slots__ = ("batches",)
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    batches: int
    def __init__(self, batches: _Optional[int] = ...) -> None: ...
