import { parseDocument } from "yaml";
import { PruneError } from "../../errors.js";
import { readDocument } from "../json.js";

// Aliases within aliases make a short text into a huge value.
const MAX_ALIASES = 1000;

/** Reads a YAML mapping. Tags and `_target_` names are data: nothing is looked up by them. Throws BAD_CONFIG or PATH_NOT_FOUND. */
export async function readYamlObject(path: string): Promise<Readonly<Record<string, unknown>>> {
  const document = parseDocument(await readDocument(path, "BAD_CONFIG"), { logLevel: "error", prettyErrors: true });
  const [problem] = document.errors;
  if (problem) throw bad(path, `is not YAML: ${problem.message}`, problem);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (cause) {
    throw bad(path, "has aliases within aliases, more than any config needs", cause);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Readonly<Record<string, unknown>>;
  throw bad(path, "must hold a YAML mapping");
}

function bad(path: string, what: string, cause?: unknown): PruneError {
  return new PruneError("BAD_CONFIG", `${path} ${what}`, { cause });
}
