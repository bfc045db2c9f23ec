import { z } from "zod";
import { PruneError } from "../../errors.js";
import { suggestName } from "../nearest.js";

/** By patterns of module names, in which `*` and `?` stand for any: the last that matches holds; null leaves a module as it is. */
export const byName = <Options extends z.ZodType>(options: Options) => z.record(z.string(), options.nullable());

/** The names that a pattern stands for. */
export function wildcard(pattern: string): RegExp {
  const escaped = pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`^${escaped.replaceAll("*", ".*").replaceAll("?", ".")}$`);
}

/**
 * Refuses patterns, other than `*`, that stand for no module.
 *
 * @param kind - of the modules, as the mode's options name it
 * @param modules - all of that kind that have channels or heads of their own
 * @throws PruneError BAD_OPTION that names the pattern
 */
export function checkPatterns(kind: string, patterns: Readonly<Record<string, unknown>>, modules: readonly string[]): void {
  const idle = Object.keys(patterns).find((pattern) => pattern !== "*" && !modules.some((module) => wildcard(pattern).test(module)));
  if (idle === undefined) return;
  throw new PruneError("BAD_OPTION", `options of the mode: ${kind} ${JSON.stringify(idle)} matches none of its modules`, {
    hint: modules.length > 0 ? suggestName(idle, modules) : `this network has no ${kind} that could be cut`,
  });
}
