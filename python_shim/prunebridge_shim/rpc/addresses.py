"""Where a shim listens."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError

MAX_PORT = 65535
TCP = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Address:
    """A host and a port, 0 for any that is free; or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Reads `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`; raises INVALID_REQUEST."""
        if text.startswith("unix:") and text != "unix:":
            return cls(path=Path(text.removeprefix("unix:")))
        match = TCP.fullmatch(text)
        if match is None or int(match["port"]) > MAX_PORT:
            raise ShimError(
                Reason.INVALID_REQUEST,
                f"{text!r} is no address to listen on",
                "write HOST:PORT, [IPV6]:PORT or unix:PATH; port 0 takes one that is free",
            )
        return cls(host=match["v6"] or match["host"], port=int(match["port"]))

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def at(self, port: int) -> "Address":
        """The same host with the port that it was given."""
        return self if self.path is not None else Address(self.host, port)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
