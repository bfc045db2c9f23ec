"""The Python side of prunebridge: mechanism only. What to measure and what to keep is decided by its client."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunebridge_shim.guest import Guest as Guest
    from prunebridge_shim.guest import attach as attach

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Slicing needs no torch, and must not wait for it.
    if name in ("Guest", "attach"):
        from prunebridge_shim import guest

        return getattr(guest, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
