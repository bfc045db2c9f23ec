import type { PlanFile } from "../checkpoint/planFile.js";
import type { ScoreFile } from "../checkpoint/scoreFile.js";
import { PruneError } from "../errors.js";
import type { Model } from "../model/model.js";
import type { ScorableModel, ScoredCandidate, SearchListener } from "../policy/modes/minitron.js";
import type { Plan } from "../policy/plan.js";
import type { Accumulators } from "../policy/scores.js";
import type { Candidate, SearchResult } from "../policy/search/search.js";
import { withTotal } from "../progress.js";
import { formatCandidates, formatScored, formatSpace } from "../tables.js";
import { tellerOf } from "./commonConfig.js";
import type { CheckedConfig } from "./config.js";
import { obtainScores } from "./obtainScores.js";
import { contextOf } from "./scoringContext.js";
import type { SearchMemory } from "./searchMemory.js";

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
    const { verbose, onProgress, scoreFunc } = this.#options;
    const say = tellerOf(verbose);
    const scored: ScoredCandidate[] = [];
    let found: SearchResult | undefined;
    const report = scoreFunc && onProgress && withTotal(onProgress, () => found?.candidates.length);
    const progress = { phase: "scoring", total: 0, unit: "candidates", etaSeconds: undefined };
    return {
      onFound: (result) => {
        found = result;
        this.#memory.propose(result.candidates);
        say?.(formatSpace(result));
        report?.({ ...progress, done: 0 });
      },
      onScored: (candidate, index, total) => {
        scored.push(candidate);
        if (scoreFunc) say?.(formatScored(candidate, index, total));
        report?.({ ...progress, done: index + 1 });
        if (index + 1 === total && found) say?.(formatCandidates(found, scored));
      },
    };
  }

  async #evaluate(plan: Plan, candidate: Candidate): Promise<number> {
    const { scoreFunc, signal } = this.#options;
    if (!scoreFunc) throw new PruneError("INTERNAL", "a candidate is evaluated without a score function");
    this.#context ??= contextOf(this.#model, scoreFunc, this.#measured);
    const context = await this.#context;
    const known = this.#memory.recall(context, candidate.exportConfig);
    if (known !== undefined) return known;
    const began = performance.now();
    await using view = await this.#model.view(planFileOf(this.#model, plan), { signal });
    const value = await view.score(scoreFunc, { signal });
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

/** A record as JSON has it, which the caller's own may not be. */
export function plainCopy(record: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return JSON.parse(JSON.stringify(record)) as Record<string, unknown>; // an object in, an object out
}
