import { createHash } from "node:crypto";
import { calibrate } from "./calibrate.js";
import type { PlanFile } from "./checkpoint/planFile.js";
import { checkScoredCheckpoint, readScoreFile, type ScoreFile } from "./checkpoint/scoreFile.js";
import { type CalibrationOptions, ScoreStore } from "./checkpoint/scoreStore.js";
import { PruneError } from "./errors.js";
import type { Model } from "./model.js";
import type { ScorableModel, ScoredCandidate, SearchListener } from "./policy/modes/minitron.js";
import type { Plan } from "./policy/plan.js";
import type { Accumulators } from "./policy/scores.js";
import type { Candidate, SearchResult } from "./policy/search/search.js";
import type { RunOptions } from "./progress.js";
import type { CheckedConfig } from "./pruneConfig.js";
import { isPythonRef } from "./pythonRef.js";
import type { CollectSource } from "./runnable.js";
import { score } from "./score.js";
import { type SearchMemory, scoringContext } from "./searchMemory.js";
import { formatCandidates, formatSpace } from "./tables.js";
import type { Batches } from "./tensor.js";

/** One pruning under way: what the mode asks of a model, answered from what is stored or by running the model. */
export class PruningRun implements ScorableModel {
  readonly architecture: ScorableModel["architecture"];
  readonly config: ScorableModel["config"];
  readonly evaluate: ScorableModel["evaluate"];
  /** Wall seconds so far. */
  readonly seconds = { calibration: 0, scoring: 0 };
  readonly #model: Model;
  readonly #options: CheckedConfig;
  readonly #memory: SearchMemory;
  #measured: ScoreFile | undefined;
  #context: Promise<string> | undefined;

  constructor(model: Model, options: CheckedConfig, memory: SearchMemory) {
    this.architecture = model.parent.architecture;
    this.config = model.parent.checkpoint.config;
    this.evaluate = options.scoreFunc && ((plan, candidate) => this.#evaluate(plan, candidate));
    this.#model = model;
    this.#options = options;
    this.#memory = memory;
  }

  /** The raw accumulators, where something had to be ranked. */
  get measured(): ScoreFile | undefined {
    return this.#measured;
  }

  /** Measures, or reads what was measured before. */
  async scores(): Promise<Accumulators> {
    const began = performance.now();
    this.#measured ??= await obtainScores(this.#model, this.#options);
    this.seconds.calibration += secondsSince(began);
    return this.#measured.accumulators;
  }

  /** Tells of the search as the options ask for. */
  get listener(): SearchListener {
    const { verbose, onProgress } = this.#options;
    const say = verbose === true ? (text: string): unknown => process.stderr.write(`${text}\n`) : verbose || undefined;
    const scored: ScoredCandidate[] = [];
    let found: SearchResult | undefined;
    return {
      onFound: (result) => {
        found = result;
        say?.(formatSpace(result));
      },
      onScored: (candidate, index, total) => {
        scored.push(candidate);
        onProgress?.({ phase: "scoring", done: index + 1, total, unit: "candidates", etaSeconds: undefined });
        if (index + 1 === total && found) say?.(formatCandidates(found, scored));
      },
    };
  }

  async #evaluate(plan: Plan, candidate: Candidate): Promise<number> {
    const { scoreFunc } = this.#options;
    if (!scoreFunc) throw new PruneError("INTERNAL", "a candidate is evaluated without a score function");
    this.#context ??= contextOf(this.#model, this.#options, this.#measured);
    const context = await this.#context;
    const known = this.#memory.recall(context, candidate.exportConfig);
    if (known !== undefined) return known;
    const began = performance.now();
    const options = withoutProgress(this.#options);
    await using view = await this.#model.view(planFileOf(this.#model, plan), options);
    const value = await view.score(scoreFunc, options);
    const seconds = secondsSince(began);
    this.seconds.scoring += seconds;
    await this.#memory.record(context, candidate.exportConfig, value, seconds);
    return value;
  }
}

/** A plan with the fingerprint of the network that it is for. */
export function planFileOf(model: Model, plan: Plan): PlanFile {
  return { ...plan, fingerprint: model.parent.fingerprint ?? null };
}

/** The seconds since a moment of the performance clock. */
export function secondsSince(began: number): number {
  return (performance.now() - began) / 1000;
}

async function obtainScores(model: Model, options: CheckedConfig): Promise<ScoreFile> {
  const { fingerprint } = model.parent;
  if (options.scores !== undefined) {
    const scores = await readScoreFile(options.scores);
    checkScoredCheckpoint(scores, fingerprint, options.scores);
    return scores;
  }
  const { source, checkpoint, checkpointEvery } = options;
  if (checkpoint === undefined) {
    if (source === undefined) throw nothingToRankBy();
    return score(model, model.parent, source, options);
  }
  const store = new ScoreStore(checkpoint, fingerprint, calibrationOptions(model, options));
  if (source !== undefined && isBatches(source)) return calibrate(model, model.parent, source, { ...options, store, checkpointEvery });
  const stored = await store.read();
  if (stored) return stored;
  if (source === undefined) throw nothingToRankBy();
  // A loop brings its own batches: it is run as a whole, or not at all.
  const scores = await score(model, model.parent, source, options);
  await store.write(scores);
  return scores;
}

function isBatches(source: CollectSource): source is Batches {
  return typeof source === "object" && !("forwardLoop" in source) && !("dataLoader" in source);
}

/** What stored scores must have been measured with, as far as it can be told without running anything. */
function calibrationOptions(model: Model, { source, checkpointEvery }: CheckedConfig): CalibrationOptions {
  if (source === undefined) return {};
  if (isBatches(source)) return { source: "batches", dtype: model.dtype, checkpointEvery: String(checkpointEvery) };
  if (typeof source === "function") return { source: `forward loop ${hashOf(source.toString())}`, dtype: model.dtype };
  return { source: `python ${JSON.stringify(source)}`, dtype: model.dtype };
}

/** What a candidate's score depends on beside its sizes: what ranked, the model's dtype, and the function. */
async function contextOf(model: Model, { scoreFunc }: CheckedConfig, measured: ScoreFile | undefined): Promise<string> {
  const ranking = measured ? [...measured.accumulators].map(([name, { data }]) => [name, hashOf(data)]) : "position";
  const identity = isPythonRef(scoreFunc) ? scoreFunc.name : ((await identify(scoreFunc)) ?? String(scoreFunc));
  return scoringContext(model.parent.fingerprint, model.dtype, ranking, identity);
}

async function identify(scoreFunc: unknown): Promise<string | undefined> {
  const given = scoreFunc as { identify?: () => Promise<string> }; // a function may carry it
  return given.identify?.();
}

function hashOf(content: string | Float32Array): string {
  return createHash("sha256").update(content).digest("hex");
}

function withoutProgress({ signal }: RunOptions): RunOptions {
  return { signal };
}

function nothingToRankBy(): PruneError {
  return new PruneError("BAD_OPTION", "there are no stored scores and no dataLoader or forwardLoop to calibrate with", {
    hint: 'give dataLoader: textBatches("calibration.jsonl", model), or the path of a score file as scores',
  });
}
