import { readSmallHeader, readTensorBytes } from "../checkpoint/safetensors.js";
import type { Tensor } from "../tensor.js";

/**
 * Reads a safetensors file into memory: images and labels of a data set, for one.
 *
 * @returns the tensors by name
 * @throws PruneError PATH_NOT_FOUND or BAD_SAFETENSORS
 */
export async function readTensors(path: string): Promise<Readonly<Record<string, Tensor>>> {
  const header = await readSmallHeader(path);
  const tensors: [string, Tensor][] = [];
  for (const tensor of header.tensors) {
    const { name, dtype, shape } = tensor;
    tensors.push([name, { dtype, shape, data: await readTensorBytes(header, tensor) }]);
  }
  return Object.fromEntries(tensors);
}
