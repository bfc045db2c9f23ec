"""What a shim proves itself with, and who it believes."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from prunebridge_shim.errors import Reason, ShimError


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the shim's certificate chain, its key, and the authorities whose clients alone are let in."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Reads the files. Raises INVALID_REQUEST for what they cannot be, and OSError."""
        pair = (self.key.read_bytes(), self.cert.read_bytes())
        authorities = self.client_ca.read_bytes() if self.client_ca is not None else None
        # gRPC would only say that it cannot listen.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise _unusable(f"{self.cert} with the key {self.key}", error) from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError as error:
                raise _unusable(str(self.client_ca), error) from error
        return grpc.ssl_server_credentials([pair], authorities, require_client_auth=authorities is not None)


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _unusable(what: str, error: Exception) -> ShimError:
    return ShimError(
        Reason.INVALID_REQUEST,
        f"cannot use {what}: {error}",
        "give PEM files: a certificate chain, its own key without a password, and the authorities of clients",
    )
