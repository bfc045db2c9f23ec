"""Hooks on the modules that one rank holds. S: its part of a sequence, B: batch, C: channels.

Megatron-Core's activations have the sequence first, and each rank may hold a part of the tokens, of the channels, or of
both.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from prunebridge_shim.cluster.experts import Sums, measured_experts, routed_means
from prunebridge_shim.cluster.measures import Measures, MicroBatch, Sum, TokenGroups, squared_means
from prunebridge_shim.cluster.points import Held
from prunebridge_shim.collect.experts import ROUTED
from prunebridge_shim.collect.hooks import RoutedKeys, check_cosine, routed_keys
from prunebridge_shim.collect.reductions import cosine_distance, sum_abs
from prunebridge_shim.errors import Reason, ShimError, is_out_of_memory, text_of

log = logging.getLogger(__name__)


class Hooks:
    """Measures on one rank while micro-batches run."""

    def __init__(self, groups: TokenGroups, copies: int) -> None:
        """Starts without any measure.

        Args:
            groups: The ranks over which samples are shared out.
            copies: How many ranks bring the same token to the experts.
        """
        self.measures = Measures()
        self.failure: ShimError | None = None
        """What a hook could not measure first."""
        self.running = MicroBatch(0, 0, 1, 1, counts=False)
        self._groups = groups
        self._copies = copies

    @contextmanager
    def attached(self, held: Sequence[Held], chunks: Sequence[nn.Module]) -> Iterator[None]:
        """Measures what this rank holds for as long as the context lasts."""
        with ExitStack() as stack:
            for one in held:
                for handle in self._attach(one):
                    stack.callback(handle.remove)
            for module, keys in routed_keys([one.point for one in held], [one.module for one in held]).items():
                take = self._take_routed(keys)
                stack.enter_context(measured_experts(module, self._groups.expert_channels, take))
            for chunk in chunks:
                stack.callback(chunk.register_forward_hook(self._end_micro_batch).remove)
            yield

    def _attach(self, one: Held) -> list[Any]:
        if one.point.measure == "cosine_distance":
            before, after = self._on_both(one)
            return [
                one.module.register_forward_pre_hook(before, with_kwargs=True),
                one.module.register_forward_hook(after, with_kwargs=True),
            ]
        if one.point.measure == "mean_abs_square_out" and one.norm is None:
            return [one.module.register_forward_hook(self._on_output(one))]
        if one.point.measure in ROUTED:
            return []
        return [one.module.register_forward_pre_hook(self._on_input(one), with_kwargs=True)]

    def _on_input(self, one: Held) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x_SBC = _first(args, kwargs)
            with self._noting_failures(one):
                self._add_square(one, one.norm(x_SBC) if one.norm else x_SBC, "input")

        return hook

    def _on_output(self, one: Held) -> Any:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            with self._noting_failures(one):
                self._add_square(one, _first((output,), {}), "output")

        return hook

    def _on_both(self, one: Held) -> tuple[Any, Any]:
        version = 0

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal version
            with self._noting_failures(one):
                version = getattr(_first(args, kwargs), "_version", 0)

        def after(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            x_SBC = _first(args, kwargs)
            with self._noting_failures(one):
                if getattr(x_SBC, "_version", 0) != version:
                    raise ShimError(
                        Reason.BAD_TENSOR, f"{one.point.module} changes its input in place; its cosine cannot be taken"
                    )
                self._add_cosine(one, x_SBC, _first((output,), {}))

        return before, after

    def _add_square(self, one: Held, x_SBC: Any, side: str) -> None:
        running = self.running
        group = self._group_of(one, x_SBC, side)
        total_BC = sum_abs(x_SBC.transpose(0, 1))
        tokens = torch.full((), float(x_SBC.shape[0]), device=x_SBC.device)
        self.measures.add(
            Sum(one.point.key, total_BC, tokens, lambda total, count: squared_means(total, count) / running.repeats),
            group,
        )

    def _add_cosine(self, one: Held, in_SBC: Any, out_SBC: Any) -> None:
        running = self.running
        group = self._group_of(one, in_SBC, "input")
        if self._group_of(one, out_SBC, "output") is not group:
            raise ShimError(Reason.BAD_TENSOR, f"{one.point.module} gives another part of the tokens than it takes")
        check_cosine(one.point, in_SBC, out_SBC)
        tokens = torch.full((), float(in_SBC.shape[0] * in_SBC.shape[1]), device=in_SBC.device)
        total = cosine_distance(in_SBC, out_SBC) * tokens
        self.measures.add(
            Sum(one.point.key, total, tokens, lambda total, count: total / count / running.members), group
        )

    def _group_of(self, one: Held, x_SBC: Any, side: str) -> dist.ProcessGroup:
        """The ranks over which the tokens of an activation are shared out, by how many of them it has."""
        found = list(x_SBC.shape) if isinstance(x_SBC, torch.Tensor) else type(x_SBC).__name__
        if isinstance(x_SBC, torch.Tensor) and x_SBC.ndim == len("SBC") and x_SBC.shape[1] == self.running.rows:
            for group in (self._groups.context, self._groups.sequence):
                if x_SBC.shape[0] * group.size() == self.running.length:
                    return group
        raise ShimError(
            Reason.BAD_TENSOR,
            f"the {side} of {one.point.module} is {found}; a hook needs a tensor [sequence, batch, channel] of"
            f" {self.running.rows} sequences of {self.running.length} tokens, or of this rank's part of them",
        )

    def _take_routed(self, keys: RoutedKeys) -> Callable[[Sums], None]:
        group = self._groups.expert

        def take(sums: Sums) -> None:
            # Those that hold the same experts of one batch all come to its sums, and are added up in the end.
            alike = group.size() if group else 1
            repeats = alike * self.running.repeats * self._copies
            tokens_E = sums["routed_tokens"]
            for measure, key in ((measure, key) for measure, found in keys.items() for key in found):
                if measure == "routed_mean_abs_square":
                    one = Sum(key, sums[measure], tokens_E[:, None], lambda *means: routed_means(*means) / alike)
                else:
                    one = Sum(key, sums[measure], tokens_E, lambda total, _tokens: total / repeats)
                self.measures.add(one, group)

        return take

    @contextmanager
    def _noting_failures(self, one: Held) -> Iterator[None]:
        # A rank that stopped in the middle of a micro-batch would leave others waiting. Those that share its tokens run
        # the same module, and note the same.
        try:
            yield
        except ShimError as failure:
            self.failure = self.failure or failure
        except Exception as error:
            if is_out_of_memory(error):
                raise
            log.exception("hook %s failed", one.point.key)
            message = f"hook {one.point.key}: {one.point.module} cannot be measured: {text_of(error)}"
            self.failure = self.failure or ShimError(Reason.BAD_TENSOR, message, "leave this hook out")

    def _end_micro_batch(self, *_: Any) -> None:
        self.measures.end_micro_batch(self.running.counts)


def _first(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    value = args[0] if args else kwargs.get("hidden_states")
    return value[0] if isinstance(value, tuple) and value else value
