"""Batches of a Python iterable."""

from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any

from prunebridge_shim.entry_points import EntryPoints, blaming, draw
from prunebridge_shim.gen.prunebridge.v1 import work_pb2


class PythonBatches:
    """What a data loader gives, each batch with the arguments of forward that it makes.

    Attributes:
        total: How many there will be; 0 where nothing tells.
        author: The function that makes the arguments.
    """

    def __init__(self, data: work_pb2.PythonData, entry_points: EntryPoints) -> None:
        """Calls the loader; raises PYTHON_DENIED or PYTHON_FAILED."""
        load = entry_points.find(data.data_loader)
        self._arguments_of = entry_points.find(data.collect_func) if data.collect_func else None
        with blaming(data.data_loader):
            self._loader = load()
        self._data = data
        self.author = data.collect_func or data.data_loader
        known = len(self._loader) if isinstance(self._loader, Sized) else data.max_batches
        self.total = min(known, data.max_batches) if data.max_batches else known

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Draws at most as many as were asked for; raises PYTHON_FAILED."""
        for batch in islice(draw(self._data.data_loader, self._loader), self._data.max_batches or None):
            with blaming(self.author):
                arguments = self._arguments_of(batch) if self._arguments_of else batch
            yield batch, arguments
