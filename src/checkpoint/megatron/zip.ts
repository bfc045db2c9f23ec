import { PruneError } from "../../errors.js";
import type { RangeFile } from "./rangeFile.js";

/** One file of an archive, stored as it is. */
export interface ZipRecord {
  readonly name: string;
  readonly crc32: number;
  readonly bytes: number;
  /** Where its local header begins, from the start of the archive. */
  readonly header: number;
  /** Where what follows it begins. */
  readonly end: number;
}

/** An archive that is a range of a file, and its records in the order of its directory. */
export interface ZipArchive {
  readonly file: RangeFile;
  readonly begin: number;
  readonly records: readonly ZipRecord[];
}

// Record layouts: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, section 4.3.
const LOCAL = { signature: 0x04034b50, bytes: 30 };
const CENTRAL = { signature: 0x02014b50, bytes: 46 };
const END = { signature: 0x06054b50, bytes: 22 };
const END_64 = { signature: 0x06064b50, bytes: 56 };
const LOCATOR_64 = { signature: 0x07064b50, bytes: 20 };
const WIDE = 0xffffffff;
const WIDE_FIELDS = 1;
const ENCRYPTED = 1;
const DESCRIBED_BEHIND = 1 << 3;
const DESCRIPTOR_BYTES = [16, 24];
const MAX_DIRECTORY_BYTES = 16 << 20;

/**
 * Reads the directory of an archive as torch.save writes it: nothing compressed, no comment, nothing between directory and end.
 *
 * @throws PruneError BAD_TORCH_DIST
 */
export async function readZip(file: RangeFile, begin: number, length: number): Promise<ZipArchive> {
  const fail = failure(file, begin);
  if (begin + length > file.bytes) fail(`is to be ${length} bytes long, but the file ends at ${file.bytes}`);
  const tail = await file.read(begin + Math.max(0, length - TAIL_BYTES), Math.min(length, TAIL_BYTES));
  const end = findEnd(tail, length, fail);
  const { count, bytes, offset } = end;
  if (bytes > MAX_DIRECTORY_BYTES || offset + bytes !== end.at) fail("has a directory that does not end where the archive's end begins");
  const directory = await file.read(begin + offset, bytes);
  const entries = parseDirectory(directory, count, fail);
  const beyond = entries.find(({ header, bytes: size }) => header + size > offset);
  if (beyond) fail(`places ${beyond.name} behind its directory`);
  return { file, begin, records: withEnds(entries, offset) };
}

/** Where a record's bytes begin in the file. Throws BAD_TORCH_DIST where its header and the directory contradict each other. */
export async function locateRecord({ file, begin }: ZipArchive, { name, bytes, header, end }: ZipRecord): Promise<number> {
  const fail = failure(file, begin);
  const fixed = await file.read(begin + header, LOCAL.bytes);
  if (fixed.readUInt32LE(0) !== LOCAL.signature) fail(`has no record at ${header}, where its directory places ${name}`);
  const [nameBytes, extraBytes] = [fixed.readUInt16LE(26), fixed.readUInt16LE(28)];
  const stated = (await file.read(begin + header + LOCAL.bytes, nameBytes)).toString("utf8");
  const at = header + LOCAL.bytes + nameBytes + extraBytes;
  const behind = (fixed.readUInt16LE(6) & DESCRIBED_BEHIND) === 0 ? [0] : DESCRIPTOR_BYTES;
  if (stated !== name || fixed.readUInt16LE(8) !== 0 || !behind.includes(end - at - bytes)) {
    fail(`has a record ${stated} at ${header} that is not the ${name} of its directory`);
  }
  return begin + at;
}

const TAIL_BYTES = END.bytes + LOCATOR_64.bytes + END_64.bytes;

interface End {
  readonly count: number;
  readonly bytes: number;
  readonly offset: number;
  /** Where the directory has to end, from the start of the archive. */
  readonly at: number;
}

function findEnd(tail: Buffer, length: number, fail: Fail): End {
  const at = tail.length - END.bytes;
  if (at < 0 || tail.readUInt32LE(at) !== END.signature || tail.readUInt16LE(at + 20) !== 0) fail("does not end as an archive does");
  const locator = at - LOCATOR_64.bytes;
  if (locator < END_64.bytes || tail.readUInt32LE(locator) !== LOCATOR_64.signature) {
    const [count, bytes, offset] = [tail.readUInt16LE(at + 10), tail.readUInt32LE(at + 12), tail.readUInt32LE(at + 16)];
    return { count, bytes, offset, at: length - END.bytes };
  }
  const wide = locator - END_64.bytes;
  if (tail.readUInt32LE(wide) !== END_64.signature || wide64(tail, locator + 8) !== length - tail.length + wide) {
    fail("has an end that is not where its locator says");
  }
  const [count, bytes, offset] = [wide64(tail, wide + 32), wide64(tail, wide + 40), wide64(tail, wide + 48)];
  return { count, bytes, offset, at: length - tail.length + wide };
}

type Entry = Omit<ZipRecord, "end">;

function withEnds(entries: readonly Entry[], directory: number): ZipRecord[] {
  const begins = [...entries.map(({ header }) => header), directory].sort((a, b) => a - b);
  return entries.map((entry) => ({ ...entry, end: begins[begins.indexOf(entry.header) + 1] ?? directory }));
}

function parseDirectory(directory: Buffer, count: number, fail: Fail): Entry[] {
  const records: Entry[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + CENTRAL.bytes > directory.length || directory.readUInt32LE(at) !== CENTRAL.signature) fail("has a broken directory");
    const [flags, method] = [directory.readUInt16LE(at + 8), directory.readUInt16LE(at + 10)];
    const [nameBytes, extraBytes, comment] = [28, 30, 32].map((field) => directory.readUInt16LE(at + field)) as [number, number, number];
    const next = at + CENTRAL.bytes + nameBytes + extraBytes + comment;
    if (next > directory.length) fail("has a broken directory");
    const name = directory.toString("utf8", at + CENTRAL.bytes, at + CENTRAL.bytes + nameBytes);
    if ((flags & ENCRYPTED) !== 0 || method !== 0) fail(`holds ${name} compressed or encrypted, which torch.save never does`);
    const extra = directory.subarray(at + CENTRAL.bytes + nameBytes, next - comment);
    const narrow = [24, 20, 42].map((field) => directory.readUInt32LE(at + field));
    const [bytes = 0, compressed = 0, header = 0] = widen(narrow, extra, fail);
    if (bytes !== compressed) fail(`holds ${name} with two different sizes`);
    records.push({ name, crc32: directory.readUInt32LE(at + 16), bytes, header });
    at = next;
  }
  if (at !== directory.length) fail("has a directory with more in it than its records");
  return records;
}

/** Sizes and offsets that four bytes do not hold stand in an extra field of their own, in their order. */
function widen(narrow: readonly number[], extra: Buffer, fail: Fail): number[] {
  if (!narrow.includes(WIDE)) return [...narrow];
  let at = 0;
  while (at + 4 <= extra.length && extra.readUInt16LE(at) !== WIDE_FIELDS) at += 4 + extra.readUInt16LE(at + 2);
  at += 4;
  return narrow.map((value) => {
    if (value !== WIDE) return value;
    if (at + 8 > extra.length) fail("lacks the wide field of a record");
    at += 8;
    return wide64(extra, at - 8);
  });
}

function wide64(buffer: Buffer, at: number): number {
  return Number(buffer.readBigUInt64LE(at));
}

type Fail = (what: string) => never;

function failure(file: RangeFile, begin: number): Fail {
  return (what) => {
    throw new PruneError("BAD_TORCH_DIST", `the archive at byte ${begin} of ${file.path} ${what}`, {
      hint: "the file is truncated or corrupt; fetch it again",
    });
  };
}
