import { readFile } from "node:fs/promises";
import { type ErrorCode, PruneError } from "../errors.js";

const STRING_OR_INFINITY = /"(?:[^"\\]|\\.)*"|(?<=[\s,:[-])(Infinity)\b/g;
// No config holds it: a private-use character.
const MARK = "\ue000";

/** Reads a JSON object from a file. Throws PATH_NOT_FOUND, or `code` where the text is no JSON object. */
export async function readJsonObject(path: string, code: ErrorCode): Promise<Record<string, unknown>> {
  return parseJsonObject(await readText(path), path, code);
}

/**
 * Reads a config.json. Python's writers put infinite numbers into JSON as bare words, which JSON has not: they are read as numbers.
 *
 * @throws PruneError PATH_NOT_FOUND or BAD_CONFIG
 */
export async function readConfig(path: string): Promise<Record<string, unknown>> {
  const text = await readText(path);
  return parseJsonObject(
    text.replace(STRING_OR_INFINITY, (token, infinity: string | undefined) => (infinity ? "1e999" : token)),
    path,
    "BAD_CONFIG",
  );
}

/** The text of a config.json as Python reads it. */
export function stringifyConfig(config: Readonly<Record<string, unknown>>): string {
  const marked = JSON.stringify(
    config,
    (_, value: unknown) => (typeof value === "number" && !Number.isFinite(value) ? `${MARK}${value}` : value),
    2,
  );
  return marked.replaceAll(new RegExp(`"${MARK}(-?Infinity)"`, "g"), "$1");
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
