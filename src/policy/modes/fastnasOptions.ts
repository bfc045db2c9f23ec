import { z } from "zod";
import type { ChoiceOptions, ChoiceRule } from "../network/choices.js";
import type { ChannelGroup } from "../network/facts.js";
import { byName, checkPatterns, wildcard } from "./patterns.js";

/** 0.05, 0.1, ... 1. */
const RATIOS: readonly number[] = Array.from({ length: 20 }, (_, i) => (i + 1) / 20);
const DIVISOR = 32;

const CONVOLUTIONS = ["nn.Conv1d", "nn.Conv2d", "nn.Conv3d", "nn.ConvTranspose1d", "nn.ConvTranspose2d", "nn.ConvTranspose3d"] as const;

const ratios = z
  .array(z.number().gt(0).lte(1))
  .min(1)
  .default([...RATIOS]);
const divisor = z.number().int().positive().default(DIVISOR);

const convolution = z
  .strictObject({ channels_ratio: ratios, channel_divisor: divisor })
  .transform((given): ChoiceOptions => ({ ratios: given.channels_ratio, divisor: given.channel_divisor }));
/** Of linear layers. */
export const linearChoices = z
  .strictObject({ features_ratio: ratios, feature_divisor: divisor })
  .transform((given): ChoiceOptions => ({ ratios: given.features_ratio, divisor: given.feature_divisor }));

/** Per-mode options of `fastnas` and `gradnas`, under the reference's names: how modules may be cut, by their type and name. */
export const networkOptions = z.strictObject({
  ...(Object.fromEntries(CONVOLUTIONS.map((kind) => [kind, byName(convolution).optional()])) as Record<
    (typeof CONVOLUTIONS)[number],
    z.ZodOptional<ReturnType<typeof byName<typeof convolution>>>
  >),
  "nn.Linear": byName(linearChoices).optional(),
});

export type NetworkOptions = z.output<typeof networkOptions>;

/** The rule that options make: ratios of 0.05 to 1 in steps of 0.05 and a divisor of 32 where they say nothing. */
export function choiceRule(options: NetworkOptions): ChoiceRule {
  const rules = new Map(
    Object.entries(options).map(([kind, patterns]) => [
      kind,
      Object.entries(patterns ?? {}).map(([pattern, choices]) => ({ pattern: wildcard(pattern), choices })),
    ]),
  );
  return ({ kind, module }) => {
    const rule = rules.get(kind)?.findLast(({ pattern }) => pattern.test(module));
    return rule ? rule.choices : { ratios: RATIOS, divisor: DIVISOR };
  };
}

/** Refuses patterns that stand for no module of a traced network. Throws BAD_OPTION. */
export function checkChoices(options: NetworkOptions, groups: readonly ChannelGroup[]): void {
  const outputs = groups.flatMap((group) => group.outputs);
  for (const [kind, patterns] of Object.entries(options)) {
    const modules = outputs.filter((output) => output.kind === kind).map(({ module }) => module);
    checkPatterns(kind, patterns ?? {}, modules);
  }
}
