"""Reads files as the shim and as the safetensors library do: length and content on stdin, a line of JSON for each on stdout."""

import json
import os
import sys

from safetensors import SafetensorError, deserialize

from prunebridge_shim.errors import ShimError
from prunebridge_shim.slicing.headers import read_header


def as_the_shim(content):
    fd = os.memfd_create("header")
    try:
        os.write(fd, content)
        found = read_header(fd, "x.safetensors")
    except ShimError:
        return None
    finally:
        os.close(fd)
    return {name: [tensor.dtype, list(tensor.shape), tensor.offset] for name, tensor in found.items()}


def as_the_library(content):
    try:
        found = deserialize(content)
    except SafetensorError:
        return None
    return {name: [tensor["dtype"], tensor["shape"]] for name, tensor in found}


while size := sys.stdin.buffer.read(4):
    content = sys.stdin.buffer.read(int.from_bytes(size, "little"))
    print(json.dumps({"shim": as_the_shim(content), "library": as_the_library(content)}), flush=True)
