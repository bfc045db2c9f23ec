import { PruneError } from "../../errors.js";
import type { ChannelGroup, OutputModule } from "./facts.js";

/** A hyperparameter of a traced network: how many channels a group keeps. */
export interface NetworkHyperparameter {
  /** `layer1.0.conv1.out_channels`: the first of the modules whose outputs the channels are. */
  readonly name: string;
  /** The group's position among the facts. */
  readonly group: number;
  /** Ascending; the last is the original size. */
  readonly choices: readonly number[];
}

/** What a module's outputs may be cut to. */
export interface ChoiceOptions {
  /** Shares of the original size. */
  readonly ratios: readonly number[];
  /** What a size has to be a multiple of, the original one aside. */
  readonly divisor: number;
}

/** Finds the options of a module; null where it is left as it is. */
export type ChoiceRule = (output: OutputModule) => ChoiceOptions | null;

/** The hyperparameters of a network in its own order. Groups that are fixed, or that a rule leaves as they are, have none. */
export function hyperparametersOf(groups: readonly ChannelGroup[], rule: ChoiceRule): NetworkHyperparameter[] {
  return groups.flatMap((group, index) => {
    const options = group.outputs.map(rule);
    if (group.fixed || options.includes(null)) return [];
    const choices = options.flatMap((one) => (one ? [choicesOf(group, one)] : []));
    const common = choices.reduce((all, next) => all.filter((size) => next.includes(size)), choices[0] ?? []);
    return [{ name: nameOf(group), group: index, choices: common }];
  });
}

/** The name of the hyperparameter that a group is. */
export function nameOf({ outputs: [first] }: ChannelGroup): string {
  if (!first) throw new PruneError("INTERNAL", "a group of channels is the output of no module");
  return `${first.module}.${first.attribute}`;
}

/** The sizes that channels can be cut to, ascending; the last is the original one. */
export function choicesOf(
  { channels, sections }: Pick<ChannelGroup, "channels" | "sections">,
  { ratios, divisor }: ChoiceOptions,
): number[] {
  const step = leastCommonMultiple(divisor, sections);
  const sizes = ratios.map((ratio) => makeDivisible(ratio * channels, step)).filter((size) => size < channels);
  return [...new Set([...sizes, channels])].sort((a, b) => a - b);
}

/** The multiple of a divisor that is nearest to a value, the next one where that falls short of the value by more than a tenth (MobileNet's rule). */
export function makeDivisible(value: number, divisor: number): number {
  const nearest = Math.max(divisor, Math.floor((value + divisor / 2) / divisor) * divisor);
  return nearest < 0.9 * value ? nearest + divisor : nearest;
}

function leastCommonMultiple(a: number, b: number): number {
  const divisor = (x: number, y: number): number => (y === 0 ? x : divisor(y, x % y));
  return (a / divisor(a, b)) * b;
}
