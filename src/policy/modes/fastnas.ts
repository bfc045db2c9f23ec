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

/** How a search came to its selection. */
export interface NetworkSearch {
  readonly selection: Selection;
  readonly costs: NetworkCosts;
  readonly sensitivity: Sensitivity;
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

/** The smallest, the middle and the original network of a space. */
export function profileSpace({ hyperparameters, costsOf }: CostedSpace): ProfiledSubnet[] {
  const row = (name: ProfiledSubnet["name"], choose: (choices: readonly number[]) => number): ProfiledSubnet => {
    const selection = selectBy(hyperparameters, ({ choices }) => choose(choices));
    return { name, selection, costs: costsOf(selection) };
  };
  return [row("min", (choices) => choices[0] ?? 0), row("centroid", centroid), row("max", (choices) => choices.at(-1) ?? 0)];
}

/**
 * Refuses a constraint that the smallest network of a space does not meet, before anything is scored.
 *
 * @throws PruneError BAD_CONSTRAINTS that says what the least is
 */
export function checkConstraint(space: CostedSpace, constraint: NetworkConstraint): void {
  const [min, , max] = profileSpace(space);
  const [least = 0, whole = 0] = [min, max].map((row) => row?.costs[constraint.metric]);
  const most = limitOf(constraint, whole);
  if (least <= most) return;
  const share = ((100 * least) / whole).toFixed(1);
  throw new PruneError("BAD_CONSTRAINTS", `${constraint.metric} ${most} cannot be met: the smallest network has ${least}`, {
    hint: `that is ${share}% of the whole; smaller ratios and divisors in the mode's options give smaller networks`,
  });
}

/**
 * Finds a network under a constraint as FastNAS does: measures what each choice of each hyperparameter costs of the score, then bisects on
 * what it may cost.
 *
 * @param judge - how good a network that keeps these channels is, higher = better
 * @param known - what was measured before
 * @throws PruneError BAD_CONSTRAINTS before anything is scored, BAD_SCORES for a score that is not finite; and what judging throws
 */
export async function searchFastnas(
  space: NetworkSpace,
  constraint: NetworkConstraint,
  judge: (kept: KeptChannels) => Promise<number>,
  known?: Sensitivity,
  listener: SensitivityListener = {},
): Promise<NetworkSearch> {
  checkConstraint(space, constraint);
  const { hyperparameters } = space;
  const sensitivity = await measureSensitivity(hyperparameters, (selection) => judge(space.keptBy(selection)), known, listener);
  return chooseNetwork(space, constraint, sensitivity);
}

/** Finds the network that a sensitivity gives under a constraint; nothing is scored. Throws BAD_CONSTRAINTS where none meets it. */
export function chooseNetwork(space: NetworkSpace, constraint: NetworkConstraint, sensitivity: Sensitivity): NetworkSearch {
  checkConstraint(space, constraint);
  const { hyperparameters, costsOf } = space;
  const { metric } = constraint;
  const most = limitOf(constraint, costsOf({})[metric]);
  const selection = bisect(hyperparameters, sensitivity, (one) => costsOf(one)[metric] <= most);
  if (!selection) throw new PruneError("INTERNAL", "the smallest network meets the constraint, and was not found");
  const sensitivityMap = Object.fromEntries(
    hyperparameters.map(({ name, choices }) => {
      const falling = monotonic(sensitivity.degradations[name] ?? []);
      return [name, Object.fromEntries(choices.map((size, i) => [size, falling[i] ?? 0]))];
    }),
  );
  return { selection, costs: costsOf(selection), sensitivity, sensitivityMap };
}

/** The most that a metric may be, given what the whole network has. */
export function limitOf({ bound }: NetworkConstraint, whole: number): number {
  return bound.kind === "absolute" ? bound.most : bound.share * whole;
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
