import { readText } from "../checkpoint/regularFile.js";
import { PruneError } from "../errors.js";

// What fits into one string.
const MAX_TEXT_BYTES = 500_000_000;

/**
 * Reads the texts of a `.jsonl` file, one object with `text` a line, or a `.txt` file, which is one text.
 *
 * @throws PruneError PATH_NOT_FOUND, or BAD_DATA that names the line
 */
export async function readTexts(path: string): Promise<string[]> {
  const texts = parseTexts(await readText(path, { code: "BAD_DATA", mostBytes: MAX_TEXT_BYTES }), path);
  if (texts.every((text) => text.trim() === ""))
    throw new PruneError("BAD_DATA", `${path} holds no text`, { hint: "name a file with calibration data" });
  return texts;
}

/** The texts in the content of a file, by the file's ending. Throws BAD_DATA that names the line. */
export function parseTexts(content: string, path: string): string[] {
  if (!path.endsWith(".jsonl")) return [content];
  return content.split("\n").flatMap((line, index) => readLine(line, `${path}:${index + 1}`));
}

function readLine(line: string, where: string): string[] {
  if (line.trim() === "") return [];
  let entry: unknown;
  try {
    entry = JSON.parse(line);
  } catch (cause) {
    throw new PruneError("BAD_DATA", `${where} is not JSON`, { cause });
  }
  if (typeof entry === "object" && entry !== null && "text" in entry && typeof entry.text === "string") return [entry.text];
  throw new PruneError("BAD_DATA", `${where} has no string "text"`);
}
