import { z } from "zod";
import { PruneError } from "../../errors.js";
import { suggestName } from "../nearest.js";
import { divisors } from "../search/options.js";
import { shown } from "../shown.js";

/** One mode to run, with its own options checked. */
export interface ParsedMode {
  readonly name: "mcore_gpt_minitron";
  readonly options: MinitronOptions;
}

const minitronOptions = z.strictObject({
  /** Keep the first positions of each dimension instead of the most important: for parents that are sorted already. Default false. */
  skip_sorting: z.boolean().default(false),
  ...divisors,
});

/** Per-mode options of `mcore_gpt_minitron`, under the reference's names. */
export type MinitronOptions = z.infer<typeof minitronOptions>;

const MINITRON = ["mcore_gpt_minitron", "mcore_minitron"];
const TO_COME = ["fastnas", "gradnas"];

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

function parseMode(name: unknown, options: unknown): ParsedMode {
  if (typeof name !== "string" || !MINITRON.includes(name)) throw unusableMode(typeof name === "string" ? name : shown(name));
  const parsed = minitronOptions.safeParse(options);
  if (parsed.success) return { name: "mcore_gpt_minitron", options: parsed.data };
  const issues = parsed.error.issues.map(({ path, message }) => [path.join("."), message].filter(Boolean).join(" "));
  throw new PruneError("BAD_MODE", `options of mode ${name}: ${issues.join("; ")}`, {
    hint: `known options: ${Object.keys(minitronOptions.shape).join(", ")}`,
  });
}

function unusableMode(name: string): PruneError {
  if (TO_COME.includes(name)) {
    return new PruneError("BAD_MODE", `mode ${name} is not implemented in this version`, {
      hint: 'decoders are pruned by "mcore_gpt_minitron"',
    });
  }
  return new PruneError("BAD_MODE", `unknown mode ${name}`, { hint: suggestName(name, [...MINITRON, ...TO_COME]) });
}
