"""An orchestrator that jobs dial, as the contract has it: one line each way, and then it is the client."""

import json
import socket
import threading
from contextlib import suppress


class Orchestrator:
    """Listens for jobs. Each connection that is taken becomes one to a port of this machine, for a client to use."""

    def __init__(self, token, context=None, host="127.0.0.1"):
        self._token = token
        self._context = context
        self._listening = socket.create_server((host, 0))
        self._listening.settimeout(40)
        self.port = self._listening.getsockname()[1]
        self.lines = []

    def take(self, answer=None):
        """Takes the next connection, and answers; gives the address at which it is a server."""
        connection = self._accept()
        line = b""
        while not line.endswith(b"\n"):
            byte = connection.recv(1)
            assert byte, line
            line += byte
        self.lines.append(json.loads(line))
        right = self.lines[-1] == {"prunebridge_dial": 1, "token": self._token}
        connection.sendall(
            (answer or json.dumps({"ok": True} if right else {"error": "who are you?"})).encode() + b"\n"
        )
        inside = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, args=(connection, inside), daemon=True).start()
        return connection, f"127.0.0.1:{inside.getsockname()[1]}"

    def close(self):
        self._listening.close()

    def _accept(self):
        connection, _ = self._listening.accept()
        connection.settimeout(None)
        return connection if self._context is None else self._context.wrap_socket(connection, server_side=True)

    def _serve(self, connection, inside):
        with inside, inside.accept()[0] as client, connection:
            carry(client, connection)


def carry(one, other):
    """Carries bytes both ways until either end hangs up."""
    back = threading.Thread(target=pump, args=(other, one), daemon=True)
    back.start()
    pump(one, other)
    back.join()


def pump(source, sink):
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
