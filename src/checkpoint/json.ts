import { readFile } from "node:fs/promises";
import { type ErrorCode, PruneError } from "../errors.js";

/** Reads a JSON object from a file. Throws PATH_NOT_FOUND, or `code` where the text is no JSON object. */
export async function readJsonObject(path: string, code: ErrorCode): Promise<Record<string, unknown>> {
  return parseJsonObject(await readText(path), path, code);
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
