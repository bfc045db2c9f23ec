import { join } from "node:path";
import { PLAN_FILE, type PlanFile, writePlanFile } from "../checkpoint/planFile.js";
import type { ScoreFile } from "../checkpoint/scoreFile.js";
import type { HistoryEntry } from "../checkpoint/searchState.js";
import { type DummyInput, workloadOf } from "../data/args.js";
import type { Model } from "../model/model.js";
import { checkBlocks } from "../plan.js";
import { withHyperparameters } from "../policy/architecture.js";
import { type Constraints, parseConstraints } from "../policy/constraints.js";
import { planMinitron, type ScoredCandidate, type SearchOutcome, searchMinitron } from "../policy/modes/minitron.js";
import type { MinitronOptions } from "../policy/modes/modes.js";
import { keptLayers, outlinePlan } from "../policy/plan.js";
import type { Costs, Workload } from "../policy/search/metrics.js";
import { costsOf, type SearchResult } from "../policy/search/search.js";
import { formatOutline } from "../tables.js";
import { pythonOf, tellerOf } from "./commonConfig.js";
import { type CheckedConfig, type PruneConfig, parseConfig, refuseSearchOptions } from "./config.js";
import { PruningRun, plainCopy, planFileOf, secondsSince } from "./run.js";
import { SearchMemory } from "./searchMemory.js";

/** What a pruning by Minitron gives: the model it was given, now pruned, and how that came about. */
export interface PruneResult {
  /** The same handle as the model. */
  readonly subnet: Model;
  readonly stateDict: StateDict;
  /** The raw accumulators that ranked; undefined where nothing had to be ranked. */
  readonly scores: ScoreFile | undefined;
}

/** The history and the statistics of a pruning: plain data, as JSON can hold it. */
export interface StateDict {
  readonly mode: "mcore_gpt_minitron";
  readonly constraints: Readonly<Record<string, unknown>>;
  /** What is kept of every dimension, and what it comes to. */
  readonly plan: PlanFile;
  /** What parent and child cost, for the sequence length and batch size of the options. */
  readonly costs: { readonly parent: Costs; readonly child: Costs };
  /** The space that was searched, and the candidates in the order in which they were scored; none where sizes were given. */
  readonly search?: Omit<SearchResult, "candidates"> & { readonly candidates: readonly ScoredCandidate[] };
  /** The candidate that was taken. */
  readonly best?: ScoredCandidate;
  /** What was run to rank: batches, samples, tokens. */
  readonly calibration?: Readonly<Record<string, string>>;
  /** What every run on this checkpoint folder came to, this one last. */
  readonly history: readonly HistoryEntry[];
  /** Wall seconds. */
  readonly timings: { readonly calibration: number; readonly scoring: number; readonly total: number };
}

/**
 * Prunes a decoder to given sizes, or to the best of the candidates that a search under bounds finds; see {@link prune}.
 *
 * @param options - of the mode
 */
export async function pruneMinitron<Item>(
  model: Model,
  options: MinitronOptions,
  constraints: Readonly<Record<string, unknown>>,
  dummyInput: DummyInput | null,
  config: PruneConfig<Item>,
): Promise<PruneResult> {
  const began = performance.now();
  const wanted = parseConstraints(constraints);
  const checked = parseConfig(config);
  if (wanted.kind === "export_config") refuseSearchOptions(config);
  const workload = { ...checked, flopsOf: workloadOf(dummyInput) };
  model.checkUnpruned();
  if (checked.scoreFunc !== undefined) model.checkViewable();
  model.checkAllowed(pythonOf(checked));

  const memory = await SearchMemory.open(checked.checkpoint, model.parent.fingerprint);
  const run = new PruningRun(model, checked, memory);
  const outcome = await decide(run, wanted, { ...options, ...workload });
  const plan = planFileOf(model, outcome.plan);
  checkBlocks(model.parent, plan);
  const asked = plainCopy(constraints);
  if (checked.checkpoint !== undefined) await writePlanFile(join(checked.checkpoint, PLAN_FILE), plan);
  await memory.conclude(summaryOf(asked, plan, outcome));
  model.prune(plan);
  const { found, candidates = [], best } = outcome;
  const stateDict: StateDict = {
    mode: "mcore_gpt_minitron",
    constraints: asked,
    plan,
    costs: costsOfBoth(model, plan, workload),
    ...(found && { search: { ...found, candidates } }),
    ...(best && { best }),
    ...(run.measured && { calibration: run.measured.provenance }),
    history: memory.history,
    timings: { ...run.seconds, total: secondsSince(began) },
  };
  return { subnet: model, stateDict, scores: run.measured };
}

type Outcome = Pick<SearchOutcome, "plan"> & Partial<SearchOutcome>;

async function decide(run: PruningRun, wanted: Constraints, options: MinitronOptions & CheckedConfig & Workload): Promise<Outcome> {
  if (wanted.kind === "bounds") return searchMinitron(run, wanted.bounds, options, run.listener);
  tellerOf(options.verbose)?.(formatOutline(outlinePlan(run.architecture, run.config, wanted.exportConfig)));
  return { plan: await planMinitron(run, wanted.exportConfig, options) };
}

function summaryOf(
  constraints: Readonly<Record<string, unknown>>,
  { child, exportConfig }: PlanFile,
  { found, best }: Outcome,
): HistoryEntry {
  return {
    constraints,
    exportConfig,
    params: child.params,
    ...(found && { spaceSize: found.spaceSize, feasible: found.feasible }),
    ...(best?.score !== undefined && { score: best.score }),
  };
}

function costsOfBoth({ parent: { architecture } }: Model, plan: PlanFile, workload: Workload): StateDict["costs"] {
  const layers = keptLayers(plan.kept, architecture.layers.length).flatMap((layer) => architecture.layers[layer] ?? []);
  const child = withHyperparameters(architecture, plan.child.hyperparameters, layers);
  return { parent: costsOf(architecture, workload), child: costsOf(child, workload) };
}
