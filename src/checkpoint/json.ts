import { readFile } from "node:fs/promises";
import { applyEdits, modify } from "jsonc-parser";
import { type ErrorCode, PruneError } from "../errors.js";

const STRING_OR_INFINITY = /"(?:[^"\\]|\\.)*"|(?<=[\s,:[-])(Infinity)\b/g;
const FORMATTING = { insertSpaces: true, tabSize: 2 };

/** Reads a JSON object from a file. Throws PATH_NOT_FOUND, or `code` where the text is no JSON object. */
export async function readJsonObject(path: string, code: ErrorCode): Promise<Record<string, unknown>> {
  return parseJsonObject(await readText(path), path, code);
}

/**
 * Parses the text of a config.json. Python's writers put infinite numbers into JSON as bare words, which JSON has not: they are read as
 * numbers.
 *
 * @throws PruneError BAD_CONFIG, naming `where`
 */
export function parseConfig(text: string, where: string): Record<string, unknown> {
  const readable = text.replace(STRING_OR_INFINITY, (token, infinity: string | undefined) => (infinity ? "1e999" : token));
  return parseJsonObject(readable, where, "BAD_CONFIG");
}

/**
 * Sets fields in the text of a config.json and leaves the rest as it is written: loaders tell `0.0` from `0`, which no JavaScript number
 * does.
 */
export function patchConfigText(text: string, patch: Readonly<Record<string, unknown>>): string {
  return Object.entries(patch).reduce(
    (patched, [key, value]) => applyEdits(patched, modify(patched, [key], value, { formattingOptions: FORMATTING })),
    text,
  );
}

/** Reads a text file. Throws PATH_NOT_FOUND. */
export async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new PruneError("PATH_NOT_FOUND", `cannot read ${path}`, { cause });
  }
}

/** Parses a JSON object. Throws `code`, naming `where`. */
export function parseJsonObject(text: string, where: string, code: ErrorCode): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new PruneError(code, `${where} is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new PruneError(code, `${where} must hold a JSON object`);
}
