"""Refuses configs that name what transformers would fetch: checkpoints of backbones, and kernels, which are code."""

from collections.abc import Iterator, Mapping
from typing import Any

from prunebridge_shim.errors import Reason, ShimError

IMPLEMENTATIONS = frozenset(
    f"{prefix}{what}_implementation{suffix}"
    for prefix in ("", "_")
    for what in ("attn", "experts")
    for suffix in ("", "_internal")
)
BUILT_IN = frozenset({None, "eager", "sdpa", "flash_attention_2", "flex_attention", "batched_mm", "grouped_mm"})
FETCHED = frozenset({"backbone", "use_timm_backbone", "use_pretrained_backbone", "use_kernels"})


def check_fetches_nothing(config: Mapping[str, Any], where: str, reason: Reason) -> None:
    """Raises `reason` where a config, at any depth, names what comes from elsewhere."""
    for path, value in _fetched(config, ""):
        raise ShimError(
            reason,
            f"{where} has {path} {value!r}, for which transformers may fetch what is not in the folder",
            f"take it out, or write one of {', '.join(sorted(filter(None, BUILT_IN)))} as an implementation",
        )


def _fetched(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _fetched(inner, f"{path}.{at}")
    if not isinstance(value, Mapping):
        return
    for name, inner in value.items():
        within = f"{path}.{name}" if path else str(name)
        if name in IMPLEMENTATIONS:
            chosen = inner.values() if isinstance(inner, Mapping) else [inner]
            if not all(isinstance(one, (str, type(None))) and one in BUILT_IN for one in chosen):
                yield within, inner
        elif name in FETCHED and inner:
            yield within, inner
        else:
            yield from _fetched(inner, within)
