"""Opens folders in Megatron's torch_dist format, whatever ranks saved them."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.slicing.headers import read_exactly
from prunebridge_shim.slicing.sources import SourceFile
from prunebridge_shim.slicing.stored import Stored
from prunebridge_shim.slicing.torch_dist_archive import Archive, locate_tensor
from prunebridge_shim.slicing.torch_dist_metadata import METADATA_FILE, Chunk, DistTensor, Metadata
from prunebridge_shim.slicing.torch_dist_view import Place, TensorView


class TorchDistFolder:
    """The tensors of a folder by their keys. A file is opened once, when something in it is looked for.

    Attributes:
        metadata: What there is.

    Raises:
        ShimError: BAD_CHECKPOINT where the folder's .metadata is no sound one.
        FileNotFoundError: it has none.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._files: dict[str, SourceFile] = {}
        self._tensors: dict[str, DistTensor] = {}
        self._offsets: dict[tuple[str, int], int] = {}
        file = self._open(METADATA_FILE)
        self.metadata = Metadata(read_exactly(file.fd, file.version.size, 0, str(file.path)), file.path)

    @property
    def files(self) -> Sequence[SourceFile]:
        """The .metadata, and the files that were opened so far."""
        return list(self._files.values())

    def view(self, key: str, index: Sequence[int] = ()) -> Stored:
        """The part of a tensor at positions of its first axes.

        Raises:
            ShimError: BAD_TENSOR where the folder has no such tensor, or the tensor no such part; BAD_CHECKPOINT where
                its chunks do not fill it, or a file does not hold them.
        """
        if key not in self._tensors:
            self._tensors[key] = self.metadata.tensor(key)
        tensor = self._tensors[key]
        within = all(0 <= at < size for at, size in zip(index, tensor.shape, strict=False))
        if len(index) > len(tensor.shape) or not within:
            raise ShimError(
                Reason.BAD_TENSOR, f"{key} has the shape {list(tensor.shape)}, and no part at {list(index)}"
            )
        places = {starts: self._locate(key, tensor, tensor.chunks[starts]) for starts in tensor.chunks_at(index)}
        view = TensorView(tensor, tuple(index), places)
        files = dict.fromkeys(place.file for place in places.values())
        return Stored(tensor.dtype, tensor.shape[len(index) :], list(files), view.read)

    def _locate(self, key: str, tensor: DistTensor, chunk: Chunk) -> Place:
        file = self._open(chunk.file)
        at = (chunk.file, chunk.begin)
        if at not in self._offsets:
            what = f"{key} at byte {chunk.begin} of {file.path}"
            archive = Archive(file.fd, chunk.begin, chunk.length, what)
            self._offsets[at] = locate_tensor(archive, tensor.dtype, chunk.sizes)
        return Place(file, self._offsets[at])

    def _open(self, name: str) -> SourceFile:
        if name not in self._files:
            self._files[name] = SourceFile(self._folder / name, self._stack)
        return self._files[name]
