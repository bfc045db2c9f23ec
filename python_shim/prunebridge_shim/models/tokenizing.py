"""Texts to token ids, with the tokenizer of a checkpoint folder."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray

from prunebridge_shim.errors import Reason, ShimError
from prunebridge_shim.models.folder import bad_checkpoint, existing_folder
from prunebridge_shim.models.strictness import allow_explicit_head_dim
from prunebridge_shim.tensors import Batch, Tick

TEXT_NAME = "text"

transformers.utils.logging.set_verbosity_error()


def tokenize(path: str, feed: Iterable[Batch], tick: Tick) -> tuple[NDArray[np.int64], int]:
    """Turns texts into ids, each without special tokens and followed by the end-of-text token.

    Returns:
        The ids of all texts in a row, I64 [tokens], and the number of texts.

    Raises:
        ShimError: PATH_NOT_FOUND or BAD_CHECKPOINT for the tokenizer, BAD_DATA for what is no text.
    """
    tokenizer = _load(path)
    end = [tokenizer.eos_token_id]
    pieces = []
    for index, text in enumerate(_texts(feed)):
        tick(index, 0)
        pieces.append(np.array(tokenizer(text, add_special_tokens=False)["input_ids"] + end, np.int64))
    if not pieces:
        raise ShimError(Reason.BAD_DATA, "the feed ended before its first text", "send at least one text")
    return np.concatenate(pieces), len(pieces)


def _load(path: str) -> Any:
    folder = existing_folder(path)
    allow_explicit_head_dim()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers has no error type of its own
        raise bad_checkpoint(path, error) from error
    if tokenizer.eos_token_id is None:
        raise ShimError(Reason.BAD_CHECKPOINT, f"the tokenizer of {path} has no end-of-text token", "set its eos_token")
    return tokenizer


def _texts(feed: Iterable[Batch]) -> Iterator[str]:
    for index, batch in enumerate(feed):
        tensor = batch.get(TEXT_NAME)
        if tensor is None or len(batch) > 1 or tensor.dtype != "U8":
            raise ShimError(Reason.BAD_DATA, f"text {index} is not sent as one U8 tensor {TEXT_NAME!r}")
        try:
            yield tensor.array.tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise ShimError(Reason.BAD_DATA, f"text {index} is no UTF-8 at byte {error.start}") from error
