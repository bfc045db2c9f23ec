import { join } from "node:path";
import { crc32 } from "node:zlib";
import { PruneError } from "../../errors.js";
import { type Chunk, chunkBytes, type DistTensor } from "./distMetadata.js";
import { RangeFile } from "./rangeFile.js";
import { locateTensor, type TensorBytes } from "./torchArchive.js";
import type { TorchDist } from "./torchDist.js";

const READ_BYTES = 4 << 20;

/**
 * Compares the bytes of every tensor with the checksum that they were saved with.
 *
 * @param onBytes - told how many bytes were read, after each read
 * @throws PruneError VERIFY_FAILED that names the tensor, or BAD_TORCH_DIST
 */
export async function checkChunks(dir: string, { files, tensors }: TorchDist, onBytes: (bytes: number) => void): Promise<void> {
  for (const { name } of files) {
    await using file = await RangeFile.open(join(dir, name));
    for (const tensor of tensors) {
      for (const chunk of tensor.chunks) if (chunk.file === name) await checkChunk(file, tensor, chunk, onBytes);
    }
  }
}

/** Where a chunk's elements lie in its file. Throws BAD_TORCH_DIST. */
export function locateChunk(file: RangeFile, tensor: DistTensor, chunk: Chunk): Promise<TensorBytes> {
  const expected = { dtype: tensor.dtype, shape: chunk.sizes, bytes: chunkBytes(tensor, chunk) };
  return locateTensor(file, chunk.begin, chunk.length, expected);
}

async function checkChunk(file: RangeFile, tensor: DistTensor, chunk: Chunk, onBytes: (bytes: number) => void): Promise<void> {
  const { offset, bytes, crc32: stated } = await locateChunk(file, tensor, chunk);
  let crc = 0;
  for (let done = 0; done < bytes; done += READ_BYTES) {
    const read = await file.read(offset + done, Math.min(READ_BYTES, bytes - done));
    crc = crc32(read, crc);
    onBytes(read.length);
  }
  if (crc === stated) return;
  throw new PruneError(
    "VERIFY_FAILED",
    `${file.path}: the chunk of ${tensor.key} at [${chunk.offsets.join(", ")}] has not the checksum that it was saved with`,
    {
      hint: "the file changed after it was saved; fetch it again",
    },
  );
}
