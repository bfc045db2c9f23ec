"""Shims that listen, and certificates for them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
from client import PACKAGE_ROOT, Client

NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


class Listener:
    """A shim that listens, as a user would start it, with one root."""

    def __init__(self, folder, tokens, *flags, address="127.0.0.1:0"):
        self.root = folder / "root"
        self.root.mkdir(exist_ok=True)
        args = ["--address", address, "--root", str(self.root)]
        for flag, token in tokens.items():
            args += [flag, str(write_token(folder / flag.strip("-"), token))]
        env = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prunebridge_shim", "listen", *args, *map(str, flags)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=env,
            text=True,
        )
        line = self.process.stdout.readline()
        self.ready = json.loads(line) if line else None

    @property
    def address(self):
        return self.ready["address"]

    def client(self, token, credentials=None):
        return Client(self.address, token, credentials)

    def stop(self):
        """Ends it; gives its exit status and its log."""
        self.process.terminate()
        _, log = self.process.communicate(timeout=40)
        return self.process.returncode, log


def write_token(path, token):
    path.touch(mode=0o600)
    path.write_text(f"{token}\n")
    return path


class Authority:
    """A certificate authority of a test."""

    def __init__(self, folder, name="authority"):
        self._folder = folder
        self.cert, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl("req", "-x509", *new_key(self.key), "-out", self.cert, "-days", "2", "-subj", f"/CN={name}")

    def issue(self, name, extension=NAMES, days=2):
        """Makes a certificate; gives its file and its key's. Days below zero have it expired."""
        cert, key, request = (self._folder / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(extension)
        openssl("req", *new_key(key), "-out", request, "-subj", f"/CN={name}")
        signing = ["-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-extfile", extensions]
        openssl("x509", "-req", "-in", request, *signing, "-out", cert, "-days", days)
        return cert, key


def new_key(path):
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path]


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


def channel_credentials(authority, pair=None):
    cert, key = pair or (None, None)
    return grpc.ssl_channel_credentials(
        Path(authority.cert).read_bytes(),
        private_key=key.read_bytes() if key else None,
        certificate_chain=cert.read_bytes() if cert else None,
    )
