import { z } from "zod";
import { PruneError } from "../../errors.js";
import { formatIssues } from "../issues.js";
import { suggestName } from "../nearest.js";
import { divisors } from "../search/options.js";
import { shown } from "../shown.js";
import { type NetworkOptions, networkOptions } from "./fastnasOptions.js";
import { type GradnasOptions, gradnasOptions } from "./gradnasOptions.js";

const minitronOptions = z.strictObject({
  /** Keep the first positions of each dimension instead of the most important: for parents that are sorted already. Default false. */
  skip_sorting: z.boolean().default(false),
  ...divisors,
});

/** Per-mode options of `mcore_gpt_minitron`, under the reference's names. */
export type MinitronOptions = z.infer<typeof minitronOptions>;

/** One mode to run, with its own options checked. */
export type ParsedMode =
  | { readonly name: "mcore_gpt_minitron"; readonly options: MinitronOptions }
  | { readonly name: "fastnas"; readonly options: NetworkOptions }
  | { readonly name: "gradnas"; readonly options: GradnasOptions };

/** The names that each mode goes by, and its options. */
const MODES: readonly Row[] = [
  row("mcore_gpt_minitron", ["mcore_gpt_minitron", "mcore_minitron"], minitronOptions),
  row("fastnas", ["fastnas"], networkOptions),
  row("gradnas", ["gradnas"], gradnasOptions),
];

interface Row {
  readonly names: readonly string[];
  readonly parse: (options: unknown, given: string) => ParsedMode;
}

function row<Name extends ParsedMode["name"], Options extends Extract<ParsedMode, { name: Name }>["options"]>(
  name: Name,
  names: readonly string[],
  schema: z.ZodObject & z.ZodType<Options>,
): Row {
  return {
    names,
    parse: (options, given) => {
      const parsed = schema.safeParse(options);
      if (parsed.success) return { name, options: parsed.data } as ParsedMode; // the schema is that of the name
      throw new PruneError("BAD_MODE", `options of mode ${given}: ${formatIssues(parsed.error)}`, {
        hint: `known options: ${Object.keys(schema.shape).join(", ")}`,
      });
    },
  };
}

/**
 * Reads the `mode` argument of prune(): a name, a list of names or of [name, options] pairs, or an object of options by name.
 *
 * @throws PruneError BAD_MODE
 */
export function parseModes(given: unknown): ParsedMode[] {
  const pairs = modePairs(given);
  if (pairs.length === 0) throw new PruneError("BAD_MODE", "no mode is given", { hint: 'the mode for decoders is "mcore_gpt_minitron"' });
  return pairs.map(([name, options]) => parseMode(name, options));
}

function modePairs(given: unknown): [unknown, unknown][] {
  if (typeof given === "string") return [[given, {}]];
  if (Array.isArray(given)) {
    return given.map((entry: unknown): [unknown, unknown] => (Array.isArray(entry) ? [entry[0], entry[1] ?? {}] : [entry, {}]));
  }
  if (typeof given === "object" && given !== null) return Object.entries(given);
  throw new PruneError("BAD_MODE", `mode must be a name, a list, or an object of options by name, not ${shown(given)}`);
}

function parseMode(given: unknown, options: unknown): ParsedMode {
  const name = typeof given === "string" ? given : shown(given);
  const found = MODES.find(({ names }) => names.includes(name));
  if (found && typeof given === "string") return found.parse(options, name);
  throw unusableMode(name);
}

function unusableMode(name: string): PruneError {
  return new PruneError("BAD_MODE", `unknown mode ${name}`, {
    hint: suggestName(
      name,
      MODES.flatMap(({ names }) => names),
    ),
  });
}
