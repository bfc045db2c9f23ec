import type { FileHandle } from "node:fs/promises";
import { PruneError } from "../../errors.js";
import { openRegularFile } from "../regularFile.js";

/** A file of which ranges are read. */
export class RangeFile implements AsyncDisposable {
  readonly path: string;
  readonly bytes: number;
  readonly #file: FileHandle;

  private constructor(path: string, bytes: number, file: FileHandle) {
    this.path = path;
    this.bytes = bytes;
    this.#file = file;
  }

  /** Opens a file for reading. Throws PATH_NOT_FOUND. */
  static async open(path: string): Promise<RangeFile> {
    const file = await openRegularFile(path);
    return new RangeFile(path, (await file.stat()).size, file);
  }

  /** Reads a range of bytes. Throws BAD_TORCH_DIST where the file ends before. */
  async read(offset: number, length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length);
    for (let filled = 0; filled < length; ) {
      const { bytesRead } = await this.#file.read(bytes, filled, length - filled, offset + filled);
      if (bytesRead === 0) {
        throw new PruneError("BAD_TORCH_DIST", `${this.path} ends at byte ${offset + filled}, ${length - filled} bytes early`, {
          hint: "the file is truncated; fetch it again",
        });
      }
      filled += bytesRead;
    }
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}
