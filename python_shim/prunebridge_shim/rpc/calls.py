"""How methods of services fail: by any exception, which the call carries as its detail."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from prunebridge_shim.rpc.translate import abort


def unary(method: Callable[..., Any]) -> Callable[..., Any]:
    """Lets a method raise any exception: the call fails with its detail."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except Exception as error:  # noqa: BLE001 translated
            return abort(context, error)

    return call


def streaming(method: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same for a method that yields responses."""

    @functools.wraps(method)
    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from method(self, request, context)
        except Exception as error:  # noqa: BLE001 translated
            abort(context, error)

    return call
