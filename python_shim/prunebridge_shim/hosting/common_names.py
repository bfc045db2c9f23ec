"""The classes that Megatron's common.pt is known to hold; what it holds is read as data, and nothing of it is run."""

from prunebridge_shim.slicing.torch_dist_names import TENSOR_CLASSES

_ENUMS = ("AttnBackend", "AttnMaskType", "AttnType", "CudaGraphScope", "LayerType", "ModelType")

COMMON_CLASSES = frozenset(
    {
        *TENSOR_CLASSES,
        "argparse.Namespace",
        "types.SimpleNamespace",
        *(f"megatron.core.enums.{name}" for name in ("Fp4Recipe", "Fp8Recipe", "ModelType")),
        *(f"megatron.core.transformer.enums.{name}" for name in _ENUMS),
        "megatron.core.transformer.pipeline_parallel_layer_layout.PipelineParallelLayerLayout",
        *(f"megatron.core.rerun_state_machine.{name}" for name in ("RerunDiagnostic", "RerunMode", "RerunState")),
        "torch.device",
        "signal.Signals",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        # How protocol 2, which torch.save writes, spells Python's own.
        "__builtin__.getattr",
        "__builtin__.set",
        "_codecs.encode",
    }
)
"""As the client's own reader has them."""
