import { PruneError } from "../errors.js";
import { suggestName } from "./nearest.js";

/** What a pruned model has to satisfy. */
export type Constraints = { readonly kind: "export_config"; readonly exportConfig: unknown };

const METRICS = ["params", "active_params", "memory_mb", "flops"];
const NAMES = ["export_config", ...METRICS];

/**
 * Reads the `constraints` argument of prune().
 *
 * @throws PruneError BAD_CONSTRAINTS on an unknown name, several kinds at once, or a metric, which needs a search
 */
export function parseConstraints(given: unknown): Constraints {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw bad(`constraints must be an object such as {"export_config": {...}}, not ${JSON.stringify(given) ?? typeof given}`);
  }
  const names = Object.keys(given);
  const unknown = names.find((name) => !NAMES.includes(name));
  if (unknown !== undefined) throw bad(`unknown constraint ${unknown}`, suggestName(unknown, NAMES));
  const metric = names.find((name) => METRICS.includes(name));
  if (metric !== undefined && "export_config" in given) throw bad(`export_config stands alone; it cannot be combined with ${metric}`);
  if (metric !== undefined) {
    throw bad(
      `this version does not choose among candidates by score: ${metric} cannot be given to prune()`,
      "`prunebridge search` lists sizes that meet it; give the one you choose as export_config",
    );
  }
  if (!("export_config" in given)) throw bad("constraints are empty", 'give {"export_config": {...}}');
  return { kind: "export_config", exportConfig: given.export_config };
}

function bad(detail: string, hint?: string): PruneError {
  return new PruneError("BAD_CONSTRAINTS", detail, hint === undefined ? {} : { hint });
}
