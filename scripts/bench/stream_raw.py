"""The far end of a bare unix socket, as stdin says: `take N` reads N bytes and says when it has them, `give N` sends as many, by the MiB."""

import socket
import sys

MIB = 1 << 20

with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    block = memoryview(bytearray(MIB))
    for line in sys.stdin:
        order, count = line.split()
        left = int(count)
        while left > 0:
            part = block[: min(left, MIB)]
            left -= connection.recv_into(part) if order == "take" else connection.send(part)
        if order == "take":
            connection.sendall(b"!")
