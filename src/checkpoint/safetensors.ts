import type { FileHandle } from "node:fs/promises";
import { bad, type Header, type HeaderTensor, headerBytes, LENGTH_BYTES, parseHeader } from "./header.js";
import { openRegularFile } from "./regularFile.js";

/** Bytes of a file whose tensors are read whole: files of scores and of token ids are smaller by far. */
const MAX_BYTES_IN_MEMORY = 2 ** 32;

/**
 * Reads and checks a file's header, and nothing beyond it.
 *
 * @throws PruneError BAD_SAFETENSORS that says which promise the file breaks, or PATH_NOT_FOUND
 */
export async function readHeader(path: string): Promise<Header> {
  const file = await openRegularFile(path);
  try {
    const fileBytes = (await file.stat()).size;
    const start = await readExactly(file, path, 0, Math.min(LENGTH_BYTES, fileBytes));
    const raw = await readExactly(file, path, 0, headerBytes(start, fileBytes, path));
    return parseHeader(raw, fileBytes, path);
  } finally {
    await file.close();
  }
}

/** Like {@link readHeader}, of a file whose tensors are to be read whole. Throws BAD_SAFETENSORS on one that no memory should hold, too. */
export async function readSmallHeader(path: string): Promise<Header> {
  const header = await readHeader(path);
  if (header.fileBytes <= MAX_BYTES_IN_MEMORY) return header;
  throw bad(path, `has ${header.fileBytes} bytes, over the ${MAX_BYTES_IN_MEMORY} that are read into memory`, "name the right file");
}

/** Reads one tensor's bytes. */
export async function readTensorBytes(header: Header, tensor: HeaderTensor): Promise<Uint8Array> {
  const file = await openRegularFile(header.path);
  try {
    return await readExactly(file, header.path, tensor.begin, tensor.end - tensor.begin);
  } finally {
    await file.close();
  }
}

/** Reads the first bytes of some tensors, at most as many of each as given. */
export async function readTensorStarts({ path }: Header, tensors: readonly HeaderTensor[], most: number): Promise<Uint8Array[]> {
  const file = await openRegularFile(path);
  try {
    return await Promise.all(tensors.map(({ begin, end }) => readExactly(file, path, begin, Math.min(most, end - begin))));
  } finally {
    await file.close();
  }
}

async function readExactly(file: FileHandle, path: string, position: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(bytes, filled, length - filled, position + filled);
    if (bytesRead === 0)
      throw bad(path, `ends at byte ${position + filled}, ${length - filled} bytes early`, "the file is truncated; download it again");
    filled += bytesRead;
  }
  return bytes;
}
