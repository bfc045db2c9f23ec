"""A shim that is a guest of a Megatron-Core job: what a training or inference script calls on each rank."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from prunebridge_shim.cluster.exchange import AgreedError
from prunebridge_shim.cluster.job import DEADLINE_S, WAIT_S, FollowingRank, LeadingRank, join
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.rpc.dialing import Dialing
from prunebridge_shim.rpc.reception import Entrance, Reception
from prunebridge_shim.rpc.tls import TlsFiles
from prunebridge_shim.rpc.translate import to_shim_error

if TYPE_CHECKING:
    from torch import nn

STOP_SECONDS = 1.0
"""Between two looks for the end of serving."""

log = logging.getLogger(__name__)


class Guest(ABC):
    """This rank's part of a shim that is a guest of the job. Every rank calls the same methods in the same order.

    A rank that is lost in the middle of a measurement leaves others within collectives of the model's own, so that
    what the job would compute from there on is not to be trusted: on every other rank `step`, `serve` and `detach`
    raise RANK_LOST, and the job has to be started again, as it would without a guest. All that can be told before is
    told to the client alone, and the job goes on.

    Attributes:
        address: Where clients reach the job, with the port that rank 0 has; nothing on other ranks.
        boot_id: What the handshake tells of this guest; nothing on other ranks.
    """

    address: str | None = None
    boot_id: str | None = None

    def __init__(self) -> None:
        self._end: ShimError | None = None
        self._stopped = threading.Event()

    def step(self) -> None:
        """Does what clients wait for, if any do; to be called where the job has ended a step and begun no other.

        Where nobody waits, it costs one exchange of a byte over gloo.

        Raises:
            ShimError: RANK_LOST, or INVALID_REQUEST where the guest is detached.
        """
        with self._attached():
            self._step()

    def serve(self) -> None:
        """Does whatever clients ask for, until `stop` is called on rank 0; raises as `step`."""
        with self._attached():
            self._serve()

    def stop(self) -> None:
        """Cancels what runs and ends `serve` on all ranks; for rank 0, from another thread or a signal's handler."""
        self._stopped.set()

    def detach(self) -> None:
        """Ends the guest on all ranks: clients are turned away, and nothing of it is left. Raises RANK_LOST."""
        if self._end is None:
            with self._attached():
                self._leave()
            self._end = ShimError(Reason.INVALID_REQUEST, "the guest is detached", "attach anew")

    def __enter__(self) -> "Guest":
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.detach()
        elif self._end is None:
            # Other ranks may not have failed, and will not come.
            self._fail(error)

    @contextmanager
    def _attached(self) -> Iterator[None]:
        if self._end is not None:
            raise self._end
        try:
            yield
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        message = f"the guest was detached by a failure: {error}"
        self._end = error if isinstance(error, ShimError) else ShimError(Reason.RANK_LOST, message)
        log.warning("%s", message)
        self._abandon(self._end)

    @abstractmethod
    def _step(self) -> None:
        """What this rank does of it."""

    @abstractmethod
    def _serve(self) -> None:
        """What this rank does of it."""

    @abstractmethod
    def _leave(self) -> None:
        """What this rank does of it."""

    @abstractmethod
    def _abandon(self, error: ShimError) -> None:
        """What this rank does of it."""


class _LeadingGuest(Guest):
    def __init__(self, job: LeadingRank, reception: Reception, wait_s: float) -> None:
        super().__init__()
        self._stopped = reception.stopped
        self._job = job
        self._reception = reception
        self.address, self.boot_id = reception.address, reception.boot_id
        self._wait_s = wait_s

    def _step(self) -> None:
        self._reception.pass_step()
        waiting = self._reception.waiting
        if not self._job.signal(waiting > 0):
            return
        self._job.call_together(self._wait_s)
        # What comes while these run waits for the next step: the job is not to be kept for ever.
        for _ in range(waiting):
            self._reception.attend()
        self._job.send_back()

    def _serve(self) -> None:
        self._job.call_together(self._wait_s)
        while not self._stopped.is_set():
            self._reception.attend(STOP_SECONDS)
            if (lost := self._job.lost) is not None:
                raise lost
        self._job.send_back()

    def _leave(self) -> None:
        self._reception.close()
        self._job.call_together(self._wait_s)
        self._job.leave()

    def _abandon(self, error: ShimError) -> None:
        self._job.abandon(error)
        self._reception.close(error)


class _FollowingGuest(Guest):
    def __init__(self, job: FollowingRank) -> None:
        super().__init__()
        self._job = job

    def _step(self) -> None:
        if self._job.signal(False):
            self._job.follow()

    def _serve(self) -> None:
        self._job.follow()

    def _leave(self) -> None:
        self._job.follow()

    def _abandon(self, error: ShimError) -> None:
        self._job.abandon(error)


def attach(  # noqa: PLR0913 a script names what it gives
    model: "nn.Module | Sequence[nn.Module]",
    *,
    token_file: str | Path,
    roots: Sequence[str | Path],
    address: str | None = None,
    dial: str | None = None,
    dial_ca: str | Path | None = None,
    read_token_file: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    tls_client_ca: str | Path | None = None,
    deadline_s: float = DEADLINE_S,
    wait_s: float = WAIT_S,
) -> Guest:
    """Makes the shim a guest of a Megatron-Core job. Every rank has to call it; rank 0 serves from its own threads.

    It installs no signal handler and never ends the process. Measuring runs the model in eval mode, without gradients,
    activation recomputation and CUDA graphs; all modes and random states are then what they were.

    Who may measure can end the job: a batch that some GPU has no memory for leaves the ranks in the middle of a forward
    pass, from which they do not come back together.

    Args:
        model: The model as the job has it: wrapped or not, and a list of chunks where pipeline stages are virtual.
        token_file: The token that gives all rights, in a file of mode 600; read on rank 0.
        roots: The folders that requests may name paths in.
        address: Where rank 0 listens: `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`; port 0 takes one that is free.
        dial: `HOST:PORT` of an orchestrator that listens, to which rank 0 dials out instead.
        dial_ca: The authorities that the orchestrator's certificate is by; default: the system's.
        read_token_file: A token that gives the right to look and to measure.
        tls_cert: Rank 0's certificate chain; needed where other machines reach the address.
        tls_key: Its key.
        tls_client_ca: Lets in only clients with a certificate by these authorities.
        deadline_s: Seconds by which a rank that died, was stopped or went its own way is known to be lost.
        wait_s: Seconds that ranks wait for one another to attach, or to come to the end of a step.

    Raises:
        ShimError: On all ranks: INVALID_REQUEST, PATH_DENIED or PATH_NOT_FOUND for what cannot be served so,
            STORAGE_FAILED where the address is taken, RANK_LOST with the ranks that did not call, MISSING_DEPENDENCY.
    """
    if (tls_cert is None) != (tls_key is None) or (tls_client_ca is not None and tls_cert is None):
        raise ShimError(Reason.INVALID_REQUEST, "TLS takes a certificate and its key", "give tls_cert and tls_key")
    entrance = Entrance(
        address=address,
        dialing=None if dial is None else Dialing.parse(dial, _path(dial_ca)),
        token_file=Path(token_file),
        read_token_file=_path(read_token_file),
        tls=None
        if tls_cert is None or tls_key is None
        else TlsFiles(Path(tls_cert), Path(tls_key), _path(tls_client_ca)),
        roots=[Path(root) for root in roots],
    )
    return enter(join(model, deadline_s, wait_s), entrance, wait_s)


def enter(job: LeadingRank | FollowingRank, entrance: Entrance, wait_s: float) -> Guest:
    """Opens rank 0's entrance to a job whose ranks are joined; raises on all ranks what keeps it shut."""
    reception, failure = None, None
    if isinstance(job, LeadingRank):
        try:
            reception = Reception(job, entrance)
        except Exception as error:  # noqa: BLE001 all ranks hear of it
            failure = to_shim_error(error)
    try:
        job.agree(failure)
    except AgreedError:
        job.close()
        raise
    except ShimError as error:
        job.abandon(error)
        if reception is not None:
            reception.close(error)
        raise
    job.rest()
    if isinstance(job, LeadingRank):
        assert reception is not None
        log.info("the job is reached at %s", reception.address)
        return _LeadingGuest(job, reception, wait_s)
    return _FollowingGuest(job)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
