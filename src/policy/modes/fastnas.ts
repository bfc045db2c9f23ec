import { PruneError } from "../../errors.js";
import { type ChoiceRule, hyperparametersOf, type NetworkHyperparameter } from "../network/choices.js";
import { type NetworkCosts, networkCosts } from "../network/costs.js";
import type { NetworkFacts } from "../network/facts.js";
import { type KeptChannels, keepChannels } from "../network/keptChannels.js";
import { bisect } from "../sensitivity/bisection.js";
import {
  type Choosable,
  measureSensitivity,
  monotonic,
  type Selection,
  type Sensitivity,
  type SensitivityListener,
  selectBy,
} from "../sensitivity/sensitivity.js";
import type { NetworkConstraint } from "./networkConstraint.js";

/** Choices, and what comes of them. */
export interface CostedSpace {
  readonly hyperparameters: readonly Choosable[];
  costsOf(selection: Selection): NetworkCosts;
}

/** What a network can be cut to. */
export interface NetworkSpace extends CostedSpace {
  readonly facts: NetworkFacts;
  readonly hyperparameters: readonly NetworkHyperparameter[];
  /** The channels that a selection keeps: the most important ones. */
  keptBy(selection: Selection): KeptChannels;
}

/** One line of the profile of a space. */
export interface ProfiledSubnet {
  readonly name: "min" | "centroid" | "max";
  readonly selection: Selection;
  readonly costs: NetworkCosts;
}

/** What can be had of a space, and what is asked of it. */
export interface SpaceProfile {
  readonly subnets: readonly ProfiledSubnet[];
  readonly metric: NetworkConstraint["metric"];
  /** The upper bound, as a number. */
  readonly most: number;
  /** Whether the smallest network meets it. */
  readonly satisfiable: boolean;
}

/** How a search came to its selection. */
export interface NetworkSearch {
  readonly selection: Selection;
  readonly costs: NetworkCosts;
  readonly sensitivity: Sensitivity;
  /** The most that a choice of the selection costs of the score. */
  readonly degradation: number;
  /** What each hyperparameter's choices cost, monotonic: by name and size. */
  readonly sensitivityMap: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** The search space of a traced network. Throws BAD_OPTION where nothing can be cut. */
export function networkSpace(facts: NetworkFacts, rule: ChoiceRule): NetworkSpace {
  const hyperparameters = hyperparametersOf(facts.groups, rule);
  if (!hyperparameters.some(({ choices }) => choices.length > 1)) {
    throw new PruneError("BAD_OPTION", "no layer of this network can be cut", {
      hint: "smaller divisors give more choices; channels of the network's inputs and outputs always stay",
    });
  }
  const keptBy = memoized(facts);
  const kept = (selection: Selection): KeptChannels => {
    const sizes = new Map(hyperparameters.map(({ name, group }) => [group, selection[name]]));
    return facts.groups.map((_, group) => keptBy(group, sizes.get(group)));
  };
  return { facts, hyperparameters, keptBy: kept, costsOf: (selection) => networkCosts(facts, kept(selection)) };
}

/** Profiles the smallest, the middle and the original network of a space against a constraint. */
export function profileSpace({ hyperparameters, costsOf }: CostedSpace, { metric, bound }: NetworkConstraint): SpaceProfile {
  const row = (name: ProfiledSubnet["name"], choose: (choices: readonly number[]) => number): ProfiledSubnet => {
    const selection = selectBy(hyperparameters, ({ choices }) => choose(choices));
    return { name, selection, costs: costsOf(selection) };
  };
  const min = row("min", (choices) => choices[0] ?? 0);
  const max = row("max", (choices) => choices.at(-1) ?? 0);
  const most = bound.kind === "absolute" ? bound.most : bound.share * max.costs[metric];
  return { subnets: [min, row("centroid", centroid), max], metric, most, satisfiable: min.costs[metric] <= most };
}

/**
 * Refuses a constraint that the smallest network of a space does not meet, before anything is scored.
 *
 * @throws PruneError BAD_CONSTRAINTS that says what the least is
 */
export function checkProfile({ subnets, metric, most, satisfiable }: SpaceProfile): void {
  if (satisfiable) return;
  const [least = 0, , whole = 0] = subnets.map(({ costs }) => costs[metric]);
  const share = ((100 * least) / whole).toFixed(1);
  throw new PruneError("BAD_CONSTRAINTS", `${metric} ${most} cannot be met: the smallest network has ${least}`, {
    hint: `that is ${share}% of the whole; smaller ratios and divisors in the mode's options give smaller networks`,
  });
}

/**
 * Measures what each choice of each hyperparameter costs of the score, as FastNAS does.
 *
 * @param judge - how good a network that keeps these channels is, finite, higher = better; `what` names it for errors
 * @param known - what was measured before
 * @throws what judging throws
 */
export function measureSpace(
  { hyperparameters, keptBy }: NetworkSpace,
  judge: (kept: KeptChannels, what: string) => Promise<number>,
  known?: Sensitivity,
  listener: SensitivityListener = {},
): Promise<Sensitivity> {
  return measureSensitivity(hyperparameters, (selection, what) => judge(keptBy(selection), what), known, listener);
}

/**
 * Finds the network that a sensitivity gives under a constraint, by bisection on what it may cost.
 *
 * @param profile - of this space; it can be met, as {@link checkProfile} says
 */
export function chooseNetwork(
  { hyperparameters, costsOf }: NetworkSpace,
  { metric, most }: Pick<SpaceProfile, "metric" | "most">,
  sensitivity: Sensitivity,
): NetworkSearch {
  const selection = bisect(hyperparameters, sensitivity, (one) => costsOf(one)[metric] <= most);
  if (!selection) throw new PruneError("INTERNAL", "the smallest network meets the constraint, and was not found");
  const sensitivityMap = Object.fromEntries(
    hyperparameters.map(({ name, choices }) => {
      const falling = monotonic(sensitivity.degradations[name] ?? []);
      return [name, Object.fromEntries(choices.map((size, i) => [size, falling[i] ?? 0]))];
    }),
  );
  const degradation = Math.max(0, ...hyperparameters.map(({ name }) => sensitivityMap[name]?.[selection[name] ?? 0] ?? 0));
  return { selection, costs: costsOf(selection), degradation, sensitivity, sensitivityMap };
}

/** The choice that is nearest to the choices' mean, the smaller one of two. */
function centroid(choices: readonly number[]): number {
  const mean = choices.reduce((sum, size) => sum + size, 0) / choices.length;
  return choices.reduce((best, size) => (Math.abs(size - mean) < Math.abs(best - mean) ? size : best), choices[0] ?? 0);
}

/** Bisection asks for the same channels again and again. */
function memoized({ groups }: NetworkFacts): (group: number, count: number | undefined) => readonly number[] | undefined {
  const known = new Map<string, readonly number[] | undefined>();
  return (index, count) => {
    const group = groups[index];
    if (!group || count === undefined) return undefined;
    const key = `${index} ${count}`;
    if (!known.has(key)) known.set(key, keepChannels(group, count));
    return known.get(key);
  };
}
