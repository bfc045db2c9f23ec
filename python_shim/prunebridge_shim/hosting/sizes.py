"""The parallel sizes of a job."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.hosting.network import Network

DIVIDES: Mapping[str, tuple[str, ...]] = {
    "tensor": ("num_attention_heads", "num_query_groups", "ffn_hidden_size", "moe_shared_expert_intermediate_size"),
    "pipeline": ("num_layers",),
    "expert": ("num_moe_experts",),
    "expert_tensor": ("moe_ffn_hidden_size",),
}
"""What of a network each size has to divide."""


@dataclass(frozen=True)
class Sizes:
    """How many ranks share what out, and whether sequences are shared out between layers' projections."""

    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    expert: int = 1
    expert_tensor: int = 1
    sequence_parallel: bool = False

    def check(self, network: Network) -> None:
        """Raises INVALID_REQUEST where a size does not divide what it shares out."""
        for name, fields in DIVIDES.items():
            size = getattr(self, name)
            for field in fields:
                whole = network.config.get(field)
                if whole is not None and whole % size:
                    raise ShimError(
                        Reason.INVALID_REQUEST,
                        f"{field} {whole} is not a multiple of the {name.replace('_', ' ')} parallel size {size}",
                        "take a size that divides it",
                    )
        if self.expert > 1 and "num_moe_experts" not in network.config:
            raise ShimError(
                Reason.INVALID_REQUEST, "the network has no experts to share out", "leave the expert parallel size out"
            )

    def check_vocabulary(self, rows: int) -> None:
        """Raises INVALID_REQUEST where ranks cannot share the stored rows of a vocabulary out.

        Rows of padding would be tokens like all others, and change every loss.
        """
        if rows % self.tensor:
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"the vocabulary's {rows} stored rows are not a multiple of the tensor parallel size {self.tensor}",
                "take a size that divides it",
            )

    def check_ranks(self, ranks: int) -> None:
        """Raises INVALID_REQUEST where a job of so many ranks cannot be of these sizes."""
        for what, product in (
            ("tensor, pipeline and context", self.tensor * self.pipeline * self.context),
            ("expert, expert tensor and pipeline", self.expert * self.expert_tensor * self.pipeline),
        ):
            if ranks % product:
                raise ShimError(
                    Reason.INVALID_REQUEST,
                    f"{ranks} ranks are no multiple of {product}, the product of the {what} parallel sizes",
                    "start another number of ranks with torchrun --nproc-per-node, or take other sizes",
                )

    def check_engine(self, there: bool) -> None:
        """Raises MISSING_DEPENDENCY where sizes need Transformer Engine, and it is not `there`."""
        if not there and (self.context > 1 or self.sequence_parallel):
            raise ShimError(
                Reason.MISSING_DEPENDENCY,
                "context and sequence parallelism need a GPU and Transformer Engine, which are not both here",
                "pip install 'transformer-engine[pytorch]', or leave them out",
            )

    def config(self) -> dict[str, Any]:
        """Fields of a TransformerConfig."""
        return {
            "tensor_model_parallel_size": self.tensor,
            "pipeline_model_parallel_size": self.pipeline,
            "context_parallel_size": self.context,
            "expert_model_parallel_size": self.expert,
            "expert_tensor_parallel_size": self.expert_tensor,
            "sequence_parallel": self.sequence_parallel,
        }
