"""Where clients reach a job that the shim is a guest of: rank 0's server, and the work that waits for the job."""

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from prunebridge_shim.cluster.job import LeadingRank
from prunebridge_shim.entry_points import EntryPoints
from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.rpc.dialing import Dialer, Dialing
from prunebridge_shim.rpc.health import NOT_SERVING, SERVING
from prunebridge_shim.rpc.hosted import HostedModel
from prunebridge_shim.rpc.listening import Listening, start_listening
from prunebridge_shim.rpc.registry import MODELS
from prunebridge_shim.rpc.server import ShimServer
from prunebridge_shim.rpc.tls import TlsFiles
from prunebridge_shim.rpc.tokens import read_token_file

LOOK_SECONDS = 1.0
"""Between two looks for lost ranks, and for the end of the job."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entrance:
    """How clients reach a job: they come to an address, or the job dials out to one.

    Attributes:
        address: Where rank 0 listens: `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.
        dialing: Where it dials out to instead.
        token_file: The token that gives all rights.
        read_token_file: One that gives the right to read.
        tls: What rank 0 proves itself with where it listens.
        roots: The folders that requests may name paths in.
    """

    address: str | None
    dialing: Dialing | None
    token_file: Path
    read_token_file: Path | None
    tls: TlsFiles | None
    roots: Sequence[Path]

    def __post_init__(self) -> None:
        if (self.address is None) == (self.dialing is None):
            raise ShimError(
                Reason.INVALID_REQUEST,
                "a job listens on an address or dials out to one, and does not do both",
                "give either the address to listen on or the one to dial",
            )
        if not self.roots:
            raise ShimError(Reason.INVALID_REQUEST, "no root is given", "give a folder that requests may name paths in")


class Reception:
    """Serves clients of a job. What they want of its model waits until rank 0 attends to it.

    Attributes:
        address: Where clients reach it.
        boot_id: As the handshake tells it.
        stopped: Once it is set, all work is cancelled.
    """

    def __init__(self, job: LeadingRank, entrance: Entrance) -> None:
        """Begins to serve; raises as `start_listening`."""
        self._job = job
        self._hosted = HostedModel(job)
        self._undo: list[Callable[[], object]] = []
        self._server = self._open(entrance)
        self.stopped = threading.Event()
        self._closed = threading.Event()
        self._probe = ThreadPoolExecutor(1, "prunebridge-probe")
        threading.Thread(target=self._watch, name="prunebridge-watch", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many operations wait for the job, more or less."""
        return self._server.registry.waiting(MODELS)

    def attend(self, seconds: float = 0.0) -> bool:
        """Does the next piece of work; False where none comes in time.

        Raises:
            ShimError: RANK_LOST where nothing can be done any more.
        """
        did = self._server.registry.run_next(MODELS, seconds)
        if self._job.over is not None:
            raise self._job.over
        return did

    def pass_step(self) -> None:
        """Says that the job goes on, and may change its weights."""
        self._hosted.steps += 1

    def close(self, error: ShimError | None = None) -> None:
        """Ends what waits, by an error where one is given, and the server."""
        if self._closed.is_set():
            return
        self._closed.set()
        if error is not None:
            self._server.registry.fail_waiting(MODELS, error)
        self._server.stop()
        self._probe.shutdown()
        while self._undo:
            self._undo.pop()()

    def _open(self, entrance: Entrance) -> ShimServer:
        address = entrance.address
        if entrance.dialing is not None:
            # Raises what is wrong with it before anything is begun.
            entrance.dialing.context()
        try:
            if address is None:
                folder = Path(tempfile.mkdtemp(prefix="prunebridge-"))
                self._undo.append(lambda: shutil.rmtree(folder, ignore_errors=True))
                address = f"unix:{folder / 'shim.sock'}"
            listening = Listening(
                address=address,
                token_file=entrance.token_file,
                read_token_file=entrance.read_token_file,
                tls=entrance.tls,
                roots=entrance.roots,
                entry_points=EntryPoints(),
                hosted=self._hosted,
            )
            server, served = start_listening(listening)
        except BaseException:
            while self._undo:
                self._undo.pop()()
            raise
        self.address, self.boot_id = str(served), server.boot_id
        if entrance.dialing is not None:
            assert served.path is not None
            dialer = Dialer(entrance.dialing, read_token_file(entrance.token_file), served.path)
            self._undo.append(dialer.close)
        elif served.path is not None:
            path = served.path
            self._undo.append(lambda: path.unlink(missing_ok=True))
        return server

    def _watch(self) -> None:
        """Lets no client wait for ranks that are lost, and no client keep a job that ends."""
        while not self._closed.wait(LOOK_SECONDS):
            lost = self._job.lost
            self._server.health.tell(SERVING if lost is None else NOT_SERVING)
            if lost is not None:
                self._server.registry.fail_waiting(MODELS, lost)
            if self.stopped.is_set():
                self._server.registry.cancel_all()
            if self._job_ends():
                self.close()

    def _job_ends(self) -> bool:
        """Whether the interpreter shuts down: it waits for calls of clients, and refuses executors all new work."""
        try:
            self._probe.submit(int)
        except RuntimeError:
            return True
        return False
