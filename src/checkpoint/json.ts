import { applyEdits, modify } from "jsonc-parser";
import { type ErrorCode, PruneError } from "../errors.js";
import { readText } from "./regularFile.js";
import { endOfString, parseStrictJson } from "./strictJson.js";

const FORMATTING = { insertSpaces: true, tabSize: 2 };
// jsonc-parser's formatter fails at an indentation of 200 spaces: a text that may come near is edited without it.
const INDENTED_FAR = /[ \t]{32}/;
const INFINITY = "Infinity";

/** The largest document that is read: as much as a safetensors header may have. */
export const MAX_DOCUMENT_BYTES = 100_000_000;

/** Reads a JSON object from a file. Throws PATH_NOT_FOUND, or `code` where the text is no JSON object. */
export async function readJsonObject(path: string, code: ErrorCode): Promise<Record<string, unknown>> {
  return parseJsonObject(await readDocument(path, code), path, code);
}

/** Reads the text of a JSON document. Throws PATH_NOT_FOUND, or `code` where it cannot be one. */
export function readDocument(path: string, code: ErrorCode): Promise<string> {
  return readText(path, { code, mostBytes: MAX_DOCUMENT_BYTES });
}

/**
 * Parses the text of a config.json. Python's writers put infinite numbers into JSON as bare words, which JSON has not: they are read as
 * numbers.
 *
 * @throws PruneError BAD_CONFIG, naming `where`
 */
export function parseConfig(text: string, where: string): Record<string, unknown> {
  return parseJsonObject(text.includes(INFINITY) ? withInfinityAsNumber(text) : text, where, "BAD_CONFIG");
}

/**
 * Sets fields in the text of a config.json and leaves the rest as it is written: loaders tell `0.0` from `0`, which no JavaScript number
 * does.
 */
export function patchConfigText(text: string, patch: Readonly<Record<string, unknown>>): string {
  const options = INDENTED_FAR.test(text) ? {} : { formattingOptions: FORMATTING };
  return Object.entries(patch).reduce((patched, [key, value]) => applyEdits(patched, modify(patched, [key], value, options)), text);
}

/** Parses a JSON object. Throws `code`, naming `where`. */
export function parseJsonObject(text: string, where: string, code: ErrorCode): Record<string, unknown> {
  let value: unknown;
  try {
    value = parseStrictJson(text);
  } catch (cause) {
    throw new PruneError(code, `${where} is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new PruneError(code, `${where} must hold a JSON object`);
}

function withInfinityAsNumber(text: string): string {
  const parts: string[] = [];
  let [copied, at, word] = [0, 0, text.indexOf(INFINITY)];
  while (word >= 0) {
    const quote = text.indexOf('"', at);
    if (quote >= 0 && quote < word) {
      at = endOfString(text, quote);
    } else {
      if (/[\s,:[-]/.test(text[word - 1] ?? "")) {
        parts.push(text.slice(copied, word), "1e999");
        copied = word + INFINITY.length;
      }
      at = word + INFINITY.length;
    }
    if (at > word) word = text.indexOf(INFINITY, at);
  }
  return parts.join("") + text.slice(copied);
}
