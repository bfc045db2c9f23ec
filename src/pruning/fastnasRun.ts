import { PruneError } from "../errors.js";
import { hashOf } from "../hash.js";
import type { NetworkModel } from "../model/networkModel.js";
import type { NetworkRunner } from "../model/networkRunner.js";
import { measureSpace, type NetworkSpace } from "../policy/modes/fastnas.js";
import { networkChild } from "../policy/network/child.js";
import type { NetworkFacts } from "../policy/network/facts.js";
import type { KeptChannels } from "../policy/network/keptChannels.js";
import type { Choosable, Sensitivity, SensitivityListener } from "../policy/sensitivity/sensitivity.js";
import { withTotal } from "../progress.js";
import { type Batch, countOf } from "../tensor.js";
import { tellerOf } from "./commonConfig.js";
import type { CheckedFastnas } from "./fastnasConfig.js";
import { HashedBatches } from "./hashedBatches.js";
import { identityOf } from "./identity.js";
import { secondsSince } from "./run.js";
import type { SensitivityMemory } from "./sensitivityMemory.js";

/** Wall seconds of the parts of a run. */
export interface FastnasSeconds {
  readonly tracing: number;
  readonly calibration: number;
  /** Within the score function. */
  readonly scoring: number;
  /** Making candidates on the live network, and taking them back. */
  readonly viewing: number;
  readonly bisection: number;
}

type Mutable<T> = { -readonly [Name in keyof T]: T[Name] };

/** One pruning by FastNAS under way: what the search asks of a network, answered from what is stored or by running the network. */
export class FastnasRun {
  /** Wall seconds so far. */
  readonly seconds: Mutable<FastnasSeconds> = { tracing: 0, calibration: 0, scoring: 0, viewing: 0, bisection: 0 };
  readonly #network: NetworkModel;
  readonly #options: CheckedFastnas;
  readonly #memory: SensitivityMemory;
  #dummy = "";
  #calibration: { batches: number; layers: number } | undefined;

  constructor(network: NetworkModel, options: CheckedFastnas, memory: SensitivityMemory) {
    this.#network = network;
    this.#options = options;
    this.#memory = memory;
  }

  /** What normalisation layers were calibrated over, where anything was. */
  get calibration(): { readonly batches: number; readonly layers: number } | undefined {
    return this.#calibration;
  }

  /** Traces the network with a dummy input. */
  async trace(dummy: Batch): Promise<NetworkFacts> {
    // Values have no part in what tracing finds: they may be random.
    this.#dummy = hashOf(JSON.stringify(Object.entries(dummy).map(([name, { dtype, shape }]) => [name, dtype, shape])));
    return this.#timed("tracing", () => this.#network.trace(dummy, this.#options));
  }

  /** Calibrates, and measures what is not stored. Throws CHECKPOINT_MISMATCH where what is stored is of something else. */
  async measure(space: NetworkSpace): Promise<Sensitivity> {
    const subject = {
      network: this.#identifyNetwork(space.facts),
      dummyInput: this.#dummy,
      choices: hashOf(JSON.stringify(space.hyperparameters)),
      scoreFunc: hashOf(await identityOf(this.#options.scoreFunc)),
    };
    this.#memory.check(subject);
    const calibration = await this.#timed("calibration", () => this.#calibrate());
    this.#memory.begin({ ...subject, calibration });
    const judge = (kept: KeptChannels, what: string): Promise<number> => naming(what, () => this.#score(space, kept));
    return measureSpace(space, judge, this.#memory.known, this.#listenerOf(space));
  }

  /** Times a choice by what was measured. */
  bisecting<T>(choose: () => T): T {
    const began = performance.now();
    const chosen = choose();
    this.seconds.bisection = secondsSince(began);
    return chosen;
  }

  async #score({ facts }: NetworkSpace, kept: KeptChannels): Promise<number> {
    const { scoreFunc, signal } = this.#options;
    const score = (network: NetworkRunner): Promise<number> => this.#timed("scoring", () => network.score(scoreFunc, { signal }));
    if (kept.every((channels) => channels === undefined)) return score(this.#network);
    const view = await this.#timed("viewing", () => this.#network.view(networkChild(facts, kept), { signal }));
    try {
      return await score(view);
    } finally {
      await this.#timed("viewing", () => view.close());
    }
  }

  /** Gives what the statistics are of. */
  async #calibrate(): Promise<string> {
    const { source, signal, onProgress } = this.#options;
    if (source === undefined) return this.#network.norms;
    if (typeof source === "function" || "forwardLoop" in source || "dataLoader" in source) {
      this.#calibration = await this.#network.calibrateNorms(source, { signal, onProgress });
      return typeof source === "function" ? hashOf(await identityOf(source)) : JSON.stringify(source);
    }
    const data = new HashedBatches(source, signal);
    const report = onProgress && withTotal(onProgress, () => countOf(source));
    try {
      this.#calibration = await this.#network.calibrateNorms(data.next(Number.POSITIVE_INFINITY), { signal, onProgress: report });
      return data.hash;
    } finally {
      await data.close();
    }
  }

  #listenerOf({ hyperparameters }: NetworkSpace): SensitivityListener {
    const { verbose, onProgress } = this.#options;
    const say = tellerOf(verbose);
    const total = networksOf(hyperparameters);
    const report = onProgress && withTotal(onProgress, () => total);
    let done = 0;
    const tell = (now: number): void => {
      done = now;
      report?.({ phase: "scoring", done, total: 0, unit: "candidates", etaSeconds: undefined });
    };
    // Choices that cost nothing for certain are done without being scored.
    const measured = ({ degradations }: Sensitivity): number =>
      networksOf(hyperparameters.filter(({ name }) => Object.hasOwn(degradations, name)));
    const { known } = this.#memory;
    tell(known ? measured(known) : 0);
    return {
      onScored: (what, score) => {
        say?.(`${what}: score ${score.toPrecision(6)}`);
        tell(done + 1);
      },
      onMeasured: async (sensitivity) => {
        tell(measured(sensitivity));
        await this.#memory.record(sensitivity);
      },
    };
  }

  /** Weights that no file holds are known by what they make of importances. */
  #identifyNetwork({ groups }: NetworkFacts): string {
    const importances = groups.map(({ importance }) => [...importance].map((value) => value.toPrecision(6)));
    return hashOf(JSON.stringify([this.#network.source.fingerprint, this.#network.dtype, importances]));
  }

  async #timed<T>(part: keyof FastnasSeconds, work: () => Promise<T>): Promise<T> {
    const began = performance.now();
    try {
      return await work();
    } finally {
      this.seconds[part] += secondsSince(began);
    }
  }
}

/** How many networks tell what hyperparameters cost: the whole one, and one for each smaller choice. */
function networksOf(hyperparameters: readonly Choosable[]): number {
  return hyperparameters.reduce((sum, { choices }) => sum + choices.length - 1, 1);
}

/** What scoring throws that is of no use without knowing which network was scored. */
async function naming(what: string, score: () => Promise<number>): Promise<number> {
  try {
    return await score();
  } catch (error) {
    const unclear = error instanceof PruneError && (error.code === "BAD_OPTION" || error.code === "PYTHON_FAILED");
    throw unclear ? new PruneError(error.code, `scoring ${what}: ${error.detail}`, { hint: error.hint, cause: error }) : error;
  }
}
