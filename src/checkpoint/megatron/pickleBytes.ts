import { PruneError } from "../../errors.js";

const LATEST_PROTOCOL = 5;

/** The bytes of a pickle, taken one argument after the other. Every method throws BAD_TORCH_DIST where they end too soon. */
export class PickleBytes {
  readonly #bytes: Buffer;
  readonly #where: string;
  #at = 0;

  constructor(bytes: Uint8Array, where: string) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#where = where;
  }

  /** An opcode. */
  char(): string {
    return this.bytes(1).toString("latin1");
  }

  protocol(): void {
    const protocol = this.unsigned(1);
    if (protocol > LATEST_PROTOCOL) this.#fail(`is of the pickle protocol ${protocol}; known are those up to ${LATEST_PROTOCOL}`);
  }

  /** A little-endian number of 1, 2, 4 or 8 bytes. */
  unsigned(size: 1 | 2 | 4 | 8): number {
    const bytes = this.bytes(size);
    return size === 8 ? Number(bytes.readBigUInt64LE()) : bytes.readUIntLE(0, size);
  }

  signed32(): number {
    return this.bytes(4).readInt32LE();
  }

  /** A little-endian integer in two's complement; a number where it is exact as one. */
  integer(size: number): number | bigint {
    const bytes = this.bytes(size);
    const magnitude = [...bytes].reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    const value = BigInt.asIntN(8 * size, magnitude);
    return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
  }

  float(): number {
    return this.bytes(8).readDoubleBE();
  }

  text(length: number): string {
    return this.bytes(length).toString("utf8");
  }

  /** Text up to the end of its line. */
  line(): string {
    const end = this.#bytes.indexOf("\n", this.#at);
    if (end < 0) this.#fail("ends within a name");
    const text = this.text(end - this.#at);
    this.#at = end + 1;
    return text;
  }

  bytes(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) this.#fail(`ends at byte ${this.#bytes.length}, before the ${length} bytes at ${this.#at} that it needs`);
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }

  #fail(what: string): never {
    throw new PruneError("BAD_TORCH_DIST", `${this.#where} ${what}`, { hint: "the file is truncated or corrupt; fetch it again" });
  }
}
