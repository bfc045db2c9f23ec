"""Runs a child whose weights are made of an open model's just before they are used, and dropped just after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.subnet.child import place, place_in, stored_tensors
from prunebridge_shim.subnet.gather import Gather
from prunebridge_shim.subnet.prepare import LiveSlice, PreparedChild


def open_view(prepared: PreparedChild, units: Sequence[str]) -> Any:
    """Turns a prepared child into a view of its parent, which is only ever read.

    Memory holds the parent and the unit that runs. Tensors of which nothing is cut are the parent's own.

    Args:
        prepared: The child.
        units: Dotted paths of the child's modules, each of which is made and dropped as a whole. What lies outside of
            them goes by the module that owns it.

    Raises:
        ShimError: UNKNOWN_MODULE for a unit that the child lacks, INVALID_REQUEST where one lies within another.
    """
    view, gather = prepared.child, Gather()
    modules = dict(view.named_modules(remove_duplicate=False))
    _check_units(units, modules)
    for path, slots in _slots_of_units(prepared, units).items():
        unit = _Unit(gather, slots)
        modules[path].register_forward_pre_hook(unit.make)
        modules[path].register_forward_hook(unit.drop, always_call=True)
    _state_place(view, prepared.parent.device, prepared.parent.dtype)
    return view


def make_view(prepared: PreparedChild) -> Any:
    """Turns a prepared child into a view whose tensors are made at once.

    Parameters of which nothing is cut are the parent's own; buffers, which a run may change, never are.
    """
    gather, owners = Gather(), dict(prepared.child.named_modules(remove_duplicate=False))
    for name, one in prepared.slices.items():
        made = gather(one.source, one.kept)
        if isinstance(one.source, nn.Parameter):
            made = nn.Parameter(made, requires_grad=False)
        elif one.kept.whole:
            made = made.clone()
        for twin in prepared.names[name]:
            path, _, leaf = twin.rpartition(".")
            place_in(owners[path], leaf, made)
    return prepared.child


@dataclass(frozen=True)
class _Slot:
    """A tensor's place in its unit, what it is made of, and what stands there between runs."""

    name: str
    made_of: LiveSlice
    placeholder: torch.Tensor


class _Unit:
    """The tensors of one unit. It holds no module: a cycle would keep a closed view, and so its parent, in memory."""

    def __init__(self, gather: Gather, slots: Sequence[_Slot]) -> None:
        self._gather = gather
        self._slots = slots

    def make(self, module: nn.Module, _args: Any) -> None:
        for slot in self._slots:
            place(module, slot.name, self._gather(slot.made_of.source, slot.made_of.kept))

    def drop(self, module: nn.Module, _args: Any, _output: Any) -> None:
        for slot in self._slots:
            place(module, slot.name, slot.placeholder)


def _check_units(units: Sequence[str], modules: Mapping[str, nn.Module]) -> None:
    for index, unit in enumerate(units):
        if not unit or unit not in modules:
            raise ShimError(Reason.UNKNOWN_MODULE, f"the child has no module {unit!r} to be a unit")
        for other in (*units[:index], *units[index + 1 :]):
            if f"{unit}.".startswith(f"{other}."):
                raise ShimError(Reason.INVALID_REQUEST, f"unit {unit} lies within unit {other}", "name either")


def _slots_of_units(prepared: PreparedChild, units: Sequence[str]) -> dict[str, list[_Slot]]:
    placeholders = stored_tensors(prepared.child)
    slots: dict[str, list[_Slot]] = {}
    for name, made_of in prepared.slices.items():
        for twin in prepared.names[name]:
            owner = twin.rpartition(".")[0]
            unit = next((unit for unit in units if f"{owner}.".startswith(f"{unit}.")), owner)
            within = twin.removeprefix(f"{unit}.")
            slots.setdefault(unit, []).append(_Slot(within, made_of, placeholders[twin]))
    return slots


def _state_place(view: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Has `device` and `dtype`, which transformers reads off parameters, say where and what a run's tensors are."""
    answers = {"device": property(lambda _self: device), "dtype": property(lambda _self: dtype)}
    for module in {view, view.base_model}:
        module.__class__ = type(type(module).__name__, (type(module),), answers)
