"""A shard, from its layout to the file that is whole."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zlib_ng import zlib_ng

from prunebridge_shim.slicing.layout import ShardLayout
from prunebridge_shim.slicing.pieces import Piece
from prunebridge_shim.slicing.shard import ShardFile, join_crc32


@dataclass(frozen=True)
class Shard:
    """A file that is written, and how it is laid out."""

    file: ShardFile
    layout: ShardLayout

    def commit(self, pieces: Sequence[Piece], crcs: Mapping[int, int], flush: bool) -> int:
        """Makes the file valid, once all of its pieces are written; gives its CRC-32.

        Args:
            pieces: The shard's, in order.
            crcs: The CRC-32 of each piece by its number.
            flush: Whether the file is on the disk when it is valid.

        Raises:
            ShimError: STORAGE_FAILED where the file is not as long as it must be.
        """
        blocks: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for piece in pieces:
            blocks[piece.block].append((crcs[piece.number], piece.bytes))
        around = self.layout.around([join_crc32(b"", blocks[number]) for number in range(len(self.layout.blocks))])
        self.file.commit(flush, around)
        stretches = [(piece.offset, crcs[piece.number], piece.bytes) for piece in pieces]
        stretches += [(begin, zlib_ng.crc32(data), len(data)) for begin, data in around]
        return join_crc32(self.layout.header, [(crc, length) for _, crc, length in sorted(stretches)])
