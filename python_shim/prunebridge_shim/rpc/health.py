"""grpc.health.v1, answered from cached state.

Its messages are built in a pool of their own: a host may bring its own copy of health.proto,
and the default pool bears only one.
Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from collections.abc import Iterator
from threading import Condition
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "grpc.health.v1.Health"
ANSWERED = ("", "prunebridge.v1.OperationService")
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def _messages() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc/health/v1/health.proto", package="grpc.health.v1", syntax="proto3"
    )
    field = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    status = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(STATUSES):
        status.value.add(name=name, number=number)
    response.field.add(
        name="status",
        number=1,
        type=field.TYPE_ENUM,
        label=field.LABEL_OPTIONAL,
        type_name=".grpc.health.v1.HealthCheckResponse.ServingStatus",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse")
    found = (message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)
    return next(found), next(found)


Request, Response = _messages()


class Health:
    """Whether the shim takes work."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._status = SERVING

    def stop_serving(self) -> None:
        """Answers NOT_SERVING from now on."""
        self.tell(NOT_SERVING)

    def tell(self, status: int) -> None:
        """Answers so from now on."""
        with self._changed:
            if self._status != status:
                self._status = status
                self._changed.notify_all()

    def handler(self) -> grpc.GenericRpcHandler:
        """The service, for a server to add."""
        codec = {"request_deserializer": Request.FromString, "response_serializer": Response.SerializeToString}
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, **codec),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, **codec),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _check(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.service not in ANSWERED:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return Response(status=self._status)

    def _watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(self._wake)
        told = None
        while context.is_active():
            status = self._status if request.service in ANSWERED else SERVICE_UNKNOWN
            if status != told:
                yield Response(status=status)
                told = status
            with self._changed:
                if context.is_active() and told in {self._status, SERVICE_UNKNOWN}:
                    self._changed.wait()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
