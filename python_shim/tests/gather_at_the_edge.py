"""Random blocks and what is kept of them, and a program that gathers from such blocks between forbidden pages.

    python gather_at_the_edge.py gather.c 500

has the kernel of a source gather from and to buffers that begin where a page does or end where one does, beside pages
that a process does not survive touching. It prints how many cuts it survived.
"""

import ctypes
import mmap
import sys
from pathlib import Path

import numpy as np

from prunebridge_shim.slicing import kernel as kernels
from prunebridge_shim.slicing.gathering import LineGatherer

SIZES = [1, 2, 3, 7, 16, 31, 64, 100, 257]
ITEM_BYTES = [1, 2, 3, 4, 8, 15, 16, 17, 64, 130]
ROOM = 1 << 22


def kept_of(rng, size):
    """One, all but one, every other, the ends, a stretch, all, or scattered."""
    kinds = [
        [rng.integers(size)],
        np.delete(np.arange(size), rng.integers(size)) if size > 1 else [0],
        np.arange(0, size, 2),
        sorted({0, size - 1}),
        np.arange(size // 3, max(size // 3 + 1, 2 * size // 3)),
        np.arange(size),
        np.sort(rng.choice(size, rng.integers(1, size + 1), replace=False)),
    ]
    return np.asarray(kinds[rng.integers(len(kinds))], np.int64)


def random_cut(rng):
    """A block's rows that are kept, the axes of a row, and the bytes of an item."""
    rows = kept_of(rng, rng.integers(1, 9))
    outer = [(size, kept_of(rng, size) if rng.integers(2) else None) for size in rng.integers(1, 5, rng.integers(3))]
    size = rng.choice(SIZES)
    return rows - rows[0], [*outer, (size, kept_of(rng, size))], int(rng.choice(ITEM_BYTES))


def block_of(rng, rows, inner, item_bytes):
    """A block of as many rows as are kept of, with the ones between."""
    return rng.integers(0, 256, int(np.prod([rows[-1] + 1, *(size for size, _ in inner), item_bytes])), np.uint8)


def guarded():
    """Memory between two pages that may not be touched."""
    page = mmap.PAGESIZE
    whole = np.frombuffer(mmap.mmap(-1, ROOM + 2 * page), np.uint8)
    for begin in (0, page + ROOM):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(whole.ctypes.data + begin), ctypes.c_size_t(page), 0) == 0
    return whole[page : page + ROOM]


def main(source, count):
    kernels.SOURCE = Path(source)
    kernel = kernels.load()
    read, written = guarded(), guarded()
    for seed in range(count):
        rng = np.random.default_rng(seed)
        rows, inner, item_bytes = random_cut(rng)
        block = block_of(rng, rows, inner, item_bytes)
        for place in (lambda room, size: room[:size], lambda room, size: room[len(room) - size :]):
            source = place(read, block.size)
            source[...] = block
            LineGatherer(kernel, inner, item_bytes).gather(source, rows, lambda _, size, at=place: at(written, size))
    sys.stdout.write(str(count))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
