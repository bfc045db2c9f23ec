import { PruneError } from "../../errors.js";
import type { Architecture } from "../architecture.js";
import type { UnitRules } from "../modes/gradnasOptions.js";
import { choicesOf } from "../network/choices.js";
import type { Choosable } from "../sensitivity/sensitivity.js";
import { headsChoices } from "./cuts.js";
import { hyperparameterName, MASKED, type MaskedDimension, masksOf, unitsOf } from "./masks.js";

/** Units of a layer, or of all layers that have to keep as many. */
export interface UnitHyperparameter extends Choosable {
  readonly dimension: MaskedDimension;
  readonly layers: readonly number[];
}

/** What can be pruned by gradients. */
export interface GradientSpace {
  readonly architecture: Architecture;
  readonly hyperparameters: readonly UnitHyperparameter[];
}

/**
 * The search space of an architecture. Where all layers have to keep as much, heads stay if no config could tell how wide they are.
 *
 * @throws PruneError BAD_MODE where the family has no masks, BAD_OPTION where nothing can be cut or a pattern matches no module
 */
export function gradientSpace(architecture: Architecture, rules: UnitRules, uniform: boolean): GradientSpace {
  const layers = architecture.layers.map((_, layer) => layer);
  const scopes = uniform ? [layers] : layers.map((layer) => [layer]);
  const dimensions = uniform && architecture.table.impliedHeadDim ? MASKED.filter((dimension) => dimension !== "heads") : MASKED;
  const hyperparameters = scopes.flatMap((scope) =>
    dimensions.map((dimension) => ({ name: nameOf(architecture, dimension, scope), dimension, layers: scope, choices: [] })),
  );
  const modulesOf = (dimension: MaskedDimension): string[] =>
    hyperparameters.filter((one) => one.dimension === dimension).map(({ name }) => moduleOf(name));
  rules.check({ ffn: modulesOf("ffn"), heads: modulesOf("heads") });
  const space = hyperparameters.map((one) => ({ ...one, choices: choicesIn(architecture, one, rules) }));
  if (space.some(({ choices }) => choices.length > 1)) return { architecture, hyperparameters: space };
  throw new PruneError("BAD_OPTION", `no layer of this ${architecture.table.family} can be cut`, {
    hint: 'smaller divisors give more choices: ["gradnas", { "nn.Linear": { "*": { "feature_divisor": 8 } } }] for one',
  });
}

function nameOf(architecture: Architecture, dimension: MaskedDimension, [first = 0, ...others]: readonly number[]): string {
  const masks = masksOf(architecture);
  return others.length > 0 ? masks[dimension].name.replace("{layer}", "*") : hyperparameterName(masks, dimension, first);
}

function moduleOf(name: string): string {
  return name.slice(0, name.lastIndexOf("."));
}

function choicesIn(architecture: Architecture, { name, dimension }: UnitHyperparameter, rules: UnitRules): number[] {
  const units = unitsOf(architecture, dimension);
  const module = moduleOf(name);
  if (dimension === "heads") {
    const divisor = rules.heads(module);
    return headsChoices(architecture.hyperparameters).filter((n) => n === units || (divisor !== null && n % divisor === 0));
  }
  const options = rules.ffn(module);
  return options ? choicesOf({ channels: units, sections: 1 }, options) : [units];
}
