"""Lets transformers load networks that are well defined and that its config classes refuse."""

from collections.abc import Callable
from functools import cache
from typing import Any

import transformers

CHECK = "validate_architecture"
CONFIGS = ("LlamaConfig", "Gemma3TextConfig")
"""Those whose networks are built from head_dim, and whose check does not heed it. Old releases lack the second."""


@cache
def allow_explicit_head_dim() -> None:
    """Has transformers take a config whose hidden size is no multiple of its heads where it states a head_dim.

    transformers 5 refuses it (huggingface/transformers#46211), though its own networks are built from head_dim:
    pruning hidden channels or heads makes many such networks. Releases before 5 do not check. Lasts for the process,
    since configs are read on more than one thread: only a shim of its own calls this, never a guest.
    """
    for config in [getattr(transformers, name) for name in CONFIGS if hasattr(transformers, name)]:
        validators = getattr(config, "__class_validators__", [])
        config.__class_validators__ = [
            _unless_explicit(check) if check.__name__ == CHECK else check for check in validators
        ]


def _unless_explicit(check: Callable[[Any], None]) -> Callable[[Any], None]:
    def lenient(config: Any) -> None:
        # transformers fills in an absent head_dim before it checks, with the quotient rounded down.
        if config.head_dim == config.hidden_size // config.num_attention_heads:
            check(config)

    lenient.__name__ = check.__name__
    return lenient
