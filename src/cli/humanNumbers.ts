import { InvalidArgumentError } from "commander";

const COUNT = /^(\d+(?:\.\d+)?(?:e\d+)?)\s*([KMBT]?)$/i;
const POWERS: Readonly<Record<string, number>> = { "": 1, K: 1e3, M: 1e6, B: 1e9, T: 1e12 };
const MEMORY = /^(\d+(?:\.\d+)?)\s*(MiB|GiB|TiB|MB|GB|TB)?$/i;
const MIB_OF: Readonly<Record<string, number>> = {
  "": 1,
  MIB: 1,
  GIB: 1024,
  TIB: 1024 ** 2,
  MB: 1e6 / 2 ** 20,
  GB: 1e9 / 2 ** 20,
  TB: 1e12 / 2 ** 20,
};

/** A count as people write it: `6e9`, `6B`, `7.5M`; a percentage of the parent's is passed through. */
export function parseCount(text: string): number | string {
  if (text.trim().endsWith("%")) return text;
  const match = COUNT.exec(text.trim());
  if (!match) throw new InvalidArgumentError("it must be a number such as 6e9 or 6B, or a percentage such as 60%.");
  return Number(match[1]) * (POWERS[(match[2] ?? "").toUpperCase()] ?? 1);
}

/** Memory in MiB as people write it: `12GiB`, `9000`; a percentage of the parent's is passed through. */
export function parseMemory(text: string): number | string {
  if (text.trim().endsWith("%")) return text;
  const match = MEMORY.exec(text.trim());
  if (!match) throw new InvalidArgumentError("it must be MiB, or a size such as 12GiB, or a percentage such as 60%.");
  return Number(match[1]) * (MIB_OF[(match[2] ?? "").toUpperCase()] ?? 1);
}
