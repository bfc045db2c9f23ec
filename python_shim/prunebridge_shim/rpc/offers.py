"""What a shim offers: models that it opens itself, or the one of the job that it is a guest of."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from prunebridge_shim.gen.prunebridge.v1 import session_pb2
from prunebridge_shim.rpc import capabilities
from prunebridge_shim.rpc.registry import LANES
from prunebridge_shim.rpc.worker import WorkOnModels


class Offer(Protocol):
    """What a shim offers.

    Attributes:
        lanes: The lanes of kinds of work that are not done one after the other on the models' thread.
        attended: Lanes without a thread.
    """

    lanes: Mapping[str, str]
    attended: Collection[str]

    def kinds(self) -> list[str]:
        """The kinds of work that can be started."""

    def check(self, kind: str, work: Any) -> None:
        """Raises what keeps a piece of work from being started."""

    def devices(self) -> Sequence[session_pb2.Device]:
        """The devices that models can be opened on."""

    def ranks(self) -> session_pb2.RankLayout:
        """The parallel sizes of the job."""

    def attached(self) -> Sequence[session_pb2.AttachedModel]:
        """The job's models."""


class Hosted(Offer, WorkOnModels, Protocol):
    """The model of a job: what is offered of it, and the work on it."""


class OwnModels:
    """Models that the shim opens itself, as far as this interpreter can."""

    lanes: Mapping[str, str] = LANES
    attended: Collection[str] = ()

    def kinds(self) -> list[str]:
        """As `Offer`."""
        return capabilities.capabilities()

    def check(self, kind: str, _work: Any) -> None:
        """Raises MISSING_DEPENDENCY, or INVALID_REQUEST for work that only a guest does."""
        capabilities.require(kind)

    def devices(self) -> Sequence[session_pb2.Device]:
        """As `Offer`."""
        return [
            session_pb2.Device(name=name, description=description, memory_bytes=memory)
            for name, description, memory in capabilities.devices()
        ]

    def ranks(self) -> session_pb2.RankLayout:
        """All of them are 1."""
        return session_pb2.RankLayout(world_size=1, tensor=1, pipeline=1, data=1, context=1, expert=1)

    def attached(self) -> Sequence[session_pb2.AttachedModel]:
        """None."""
        return ()
