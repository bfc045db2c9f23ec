import { join } from "node:path";
import { PLAN_FILE, type PlanFile, writePlanFile } from "../checkpoint/planFile.js";
import type { ScoreFile } from "../checkpoint/scoreFile.js";
import type { HistoryEntry } from "../checkpoint/searchState.js";
import { type DummyInput, workloadOf } from "../data/args.js";
import { PruneError } from "../errors.js";
import type { OpenedModel } from "../model/openedModel.js";
import { formatProfile, formatSelection } from "../networkTables.js";
import { checkBlocks } from "../plan.js";
import { layerCosts } from "../policy/gradients/costs.js";
import { planByGradients } from "../policy/gradients/plan.js";
import { gradientSpace } from "../policy/gradients/space.js";
import { checkProfile, profileSpace, type SpaceProfile } from "../policy/modes/fastnas.js";
import { chooseByGradients, type GradientSearch, unscoredSpace } from "../policy/modes/gradnas.js";
import { type GradnasOptions, unitRules } from "../policy/modes/gradnasOptions.js";
import { type NetworkConstraint, parseNetworkConstraint } from "../policy/modes/networkConstraint.js";
import type { NetworkCosts } from "../policy/network/costs.js";
import type { Workload } from "../policy/search/metrics.js";
import { pythonOf, tellerOf } from "./commonConfig.js";
import { gradientScores } from "./gradientScores.js";
import { type GradnasConfig, parseGradnasConfig } from "./gradnasConfig.js";
import { plainCopy, planFileOf, secondsSince } from "./run.js";
import { SearchMemory } from "./searchMemory.js";

/** What a pruning by gradients gives: the model it was given, now pruned, and how that came about. */
export interface GradnasResult {
  /** The same handle as the model. */
  readonly subnet: OpenedModel;
  readonly stateDict: GradnasState;
  /** The squared gradients of every mask, summed over batches. */
  readonly scores: ScoreFile;
}

/** The history and the statistics of a pruning: plain data, as JSON can hold it. */
export interface GradnasState {
  readonly mode: "gradnas";
  readonly constraints: Readonly<Record<string, unknown>>;
  /** What is kept of every layer, and what it comes to. */
  readonly plan: PlanFile;
  /** The smallest, the middle and the original network of the space, and whether the constraint can be met. */
  readonly profile: SpaceProfile;
  /** The sum of scores that each choice loses: by the hyperparameter's name and size. */
  readonly sensitivityMap: GradientSearch["sensitivityMap"];
  /** How many units each hyperparameter keeps, and the negative of the most that one of them loses. */
  readonly best: { readonly sizes: Readonly<Record<string, number>>; readonly score: number };
  /** `flops` are for the dummy input; without one, for a token. */
  readonly costs: { readonly parent: NetworkCosts; readonly child: NetworkCosts };
  /** What was run: batches, samples, tokens. */
  readonly calibration: Readonly<Record<string, string>>;
  /** What every run on this checkpoint folder came to, this one last. */
  readonly history: readonly HistoryEntry[];
  /** Wall seconds. */
  readonly timings: { readonly calibration: number; readonly search: number; readonly total: number };
}

const ONE_TOKEN: Workload = { seqLength: 1, batchSize: 1 };

/**
 * Prunes channels and heads of each layer under one constraint by gradients of masks; see {@link prune}.
 *
 * @param options - of the mode
 */
export async function pruneGradnas<Item>(
  model: OpenedModel,
  { uniform, ...choices }: GradnasOptions,
  constraints: Readonly<Record<string, unknown>>,
  dummyInput: DummyInput | null,
  config: GradnasConfig<Item>,
): Promise<GradnasResult> {
  const began = performance.now();
  const constraint = parseNetworkConstraint("gradnas", constraints);
  const checked = parseGradnasConfig(config);
  const costs = layerCosts(model.parent.architecture, workloadFor(constraint, dummyInput));
  model.checkUnpruned();
  model.checkAllowed(pythonOf(checked));
  const space = gradientSpace(model.parent.architecture, unitRules(choices), uniform);
  const profile = profileSpace(unscoredSpace(space, costs), constraint);
  const say = tellerOf(checked.verbose);
  say?.(formatProfile(profile, space.hyperparameters));
  checkProfile(profile);

  const memory = await SearchMemory.open(checked.checkpoint, model.parent.fingerprint);
  const scores = await gradientScores(model, checked);
  const measured = performance.now();
  const found = chooseByGradients(space, scores.accumulators, profile, costs);
  const plan = planFileOf(model, planByGradients(space, model.parent.checkpoint.config, found));
  checkBlocks(model.parent, plan);
  const both = { parent: profile.subnets.at(-1)?.costs ?? found.costs, child: found.costs };
  const sizes = { ...found.selection };
  say?.(formatSelection(space.hyperparameters, sizes, both));
  const asked = plainCopy(constraints);
  if (checked.checkpoint !== undefined) await writePlanFile(join(checked.checkpoint, PLAN_FILE), plan);
  await memory.conclude({ constraints: asked, exportConfig: sizes, score: found.score, params: plan.child.params });
  model.prune(plan);
  const stateDict: GradnasState = {
    mode: "gradnas",
    constraints: asked,
    plan,
    profile,
    sensitivityMap: found.sensitivityMap,
    best: { sizes, score: found.score },
    costs: both,
    calibration: scores.provenance,
    history: memory.history,
    timings: { calibration: (measured - began) / 1000, search: secondsSince(measured), total: secondsSince(began) },
  };
  return { subnet: model, stateDict, scores };
}

function workloadFor({ metric }: NetworkConstraint, dummyInput: DummyInput | null): Workload {
  const workload = workloadOf(dummyInput);
  if (workload) return workload;
  if (metric === "params") return ONE_TOKEN;
  throw new PruneError("BAD_OPTION", "dummyInput is missing: a constraint on flops is for its batch size and sequence length", {
    hint: "give token ids, [batch, sequence], or { input_ids, ... }",
  });
}
