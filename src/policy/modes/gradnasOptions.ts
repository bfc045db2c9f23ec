import { z } from "zod";
import type { ChoiceOptions } from "../network/choices.js";
import { choiceRule, linearChoices } from "./fastnasOptions.js";
import { byName, checkPatterns, wildcard } from "./patterns.js";

/** How heads may be cut: to multiples of a number. */
const attentionChoices = z.strictObject({ heads_divisor: z.number().int().positive().default(1) });

/** Per-mode options of `gradnas`: how modules may be cut, by their type and name, and whether all layers keep as much. */
export const gradnasOptions = z.strictObject({
  "nn.Linear": byName(linearChoices).optional(),
  attention: byName(attentionChoices).optional(),
  /** Keep the same sizes in all layers, so that a config states them: transformers loads the child as any model. Default false. */
  uniform: z.boolean().default(false),
});

export type GradnasOptions = z.output<typeof gradnasOptions>;

/** What a module's units may be cut to; null where it is left as it is. The last pattern that matches its name holds. */
export interface UnitRules {
  readonly ffn: (module: string) => ChoiceOptions | null;
  /** The number that heads are multiples of. */
  readonly heads: (module: string) => number | null;
  /** Throws BAD_OPTION where a pattern stands for none of the modules that have such units. */
  readonly check: (modules: { readonly ffn: readonly string[]; readonly heads: readonly string[] }) => void;
}

/** The rules that options make: those of fastnas for channels, every number for heads. */
export function unitRules({ attention = {}, ...options }: Omit<GradnasOptions, "uniform">): UnitRules {
  const linear = choiceRule({ "nn.Linear": options["nn.Linear"] });
  const patterns = Object.entries(attention).map(([pattern, choices]) => ({ pattern: wildcard(pattern), choices }));
  return {
    ffn: (module) => linear({ module, kind: "nn.Linear", attribute: "out_features" }),
    heads: (module) => {
      const found = patterns.findLast(({ pattern }) => pattern.test(module));
      return found ? (found.choices?.heads_divisor ?? null) : 1;
    },
    check: ({ ffn, heads }) => {
      checkPatterns("nn.Linear", options["nn.Linear"] ?? {}, ffn);
      checkPatterns("attention", attention, heads);
    },
  };
}
