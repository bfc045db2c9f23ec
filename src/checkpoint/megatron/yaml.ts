import { isCollection, isMap, isNode, isScalar, type Pair, parseDocument, type YAMLMap } from "yaml";
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

/**
 * Sets fields of a section in the text of a YAML document and leaves the rest as it is written: what reads it may take `1e-2` for text, and
 * not `1.0e-2`.
 *
 * @throws PruneError BAD_CONFIG, naming `where`, where there is no such section
 */
export function patchYamlText(text: string, section: string, fields: Readonly<Record<string, unknown>>, where: string): string {
  const found = parseDocument(text, { logLevel: "error" }).get(section);
  if (!isMap(found)) throw bad(where, `has no section "${section}"`);
  const stated = new Map(found.items.map((pair) => [isScalar(pair.key) ? pair.key.value : undefined, pair]));
  const edits = Object.entries(fields).map(([name, value]): Edit => {
    const pair = stated.get(name);
    return pair ? replaceValue(text, pair, value) : insertField(text, found, `${name}: ${JSON.stringify(value)}`);
  });
  return edits
    .sort((a, b) => b.begin - a.begin)
    .reduce((edited, { begin, end, by }) => edited.slice(0, begin) + by + edited.slice(end), text);
}

interface Edit {
  readonly begin: number;
  readonly end: number;
  readonly by: string;
}

function replaceValue(text: string, { key, value }: Pair, by: unknown): Edit {
  const [, keyEnd] = rangeOf(key);
  const [begin, end] = rangeOf(value);
  // A list may begin on a line of its own.
  if (isCollection(value)) return { begin: keyEnd, end: begin + text.slice(begin, end).trimEnd().length, by: `: ${JSON.stringify(by)}` };
  return { begin, end, by: `${begin === end ? " " : ""}${JSON.stringify(by)}` };
}

/** A field before the first of a mapping, on a line of its own where these have one. */
function insertField(text: string, { items, flow }: YAMLMap, field: string): Edit {
  const [begin] = rangeOf(items[0]?.key);
  const indent = " ".repeat(begin - (text.lastIndexOf("\n", begin - 1) + 1));
  return { begin, end: begin, by: flow ? `${field}, ` : `${field}\n${indent}` };
}

function rangeOf(node: unknown): readonly [begin: number, end: number] {
  const range = isNode(node) ? node.range : undefined;
  if (!range) throw new RangeError("a node of a parsed document has its range");
  return [range[0], range[1]];
}

function bad(path: string, what: string, cause?: unknown): PruneError {
  return new PruneError("BAD_CONFIG", `${path} ${what}`, { cause });
}
