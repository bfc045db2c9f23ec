import type { Manifest } from "../checkpoint/manifest.js";
import type { PlanFile } from "../checkpoint/planFile.js";
import type { Tokenizer } from "../data/batches.js";
import { PruneError } from "../errors.js";
import type { Network } from "../inspect.js";
import type { Hyperparameters } from "../policy/hyperparameters.js";
import type { RunOptions } from "../progress.js";
import type { Collector } from "../score.js";
import type { SliceOptions } from "../slice.js";
import { Runner } from "./runner.js";
import type { ModelView } from "./view.js";

/** How a pruned model is written. */
export interface SaveOptions extends SliceOptions {
  /**
   * Of the model of a job: a checkpoint folder of the same network, whose config the child gets with its own sizes, and whose tokenizer and
   * other files. Its layout is then Hugging Face's where no other is asked for; without, it is Megatron's, as the config is that a job tells.
   * Default: none.
   */
  readonly like?: string;
}

/** A model that a shim can run, measure and cut, whether the shim opened it or is a guest of its job. After pruning it is the pruned model. */
export abstract class Model extends Runner implements Collector, Tokenizer, AsyncDisposable {
  #plan: PlanFile | undefined;
  /** What the model was before it was pruned. */
  abstract readonly parent: Network;

  /** What the model runs in, as torch spells it. */
  abstract get dtype(): string;

  /** The sizes that the model has now: the child's, once it is pruned. */
  get hyperparameters(): Hyperparameters {
    return this.#plan?.child.hyperparameters ?? this.parent.architecture.hyperparameters;
  }

  /** The plan by which the model was pruned, if it was. */
  get plan(): PlanFile | undefined {
    return this.#plan;
  }

  /**
   * Loads the weights now rather than with the first use, where the shim has to.
   *
   * @throws PruneError UNSUPPORTED_QUANTIZATION, MISSING_DEPENDENCY, SHIM_LOAD_FAILED or GPU_OOM
   */
  async load(options: RunOptions = {}): Promise<void> {
    await this.modelId(options);
  }

  /** Token ids of texts, by the model's own tokenizer. */
  abstract tokenize(texts: readonly string[], options?: RunOptions): Promise<BigInt64Array>;

  /**
   * Prunes the model by a plan.
   *
   * @throws PruneError BAD_PLAN where it was pruned before, BAD_OPTION where a view of it is open
   */
  prune(plan: PlanFile): void {
    this.checkUnpruned();
    this.#plan = plan;
  }

  /** Throws BAD_PLAN where the model was pruned before: plans are made for the parent's sizes. */
  checkUnpruned(): void {
    if (!this.#plan) return;
    throw new PruneError("BAD_PLAN", "this model was pruned already", {
      hint: "save it, open the child, and prune that; or open the parent again",
    });
  }

  /** Throws BAD_OPTION where the model cannot be looked at as plans would make it. */
  abstract checkViewable(): void;

  /**
   * Looks at the model as a plan would make it, without changing it.
   *
   * @throws PruneError BAD_PLAN where it was pruned before, BAD_OPTION as {@link checkViewable} does
   */
  abstract view(plan: PlanFile, options?: RunOptions): Promise<ModelView>;

  /**
   * Refuses options of {@link save} that would be refused whatever the plan is, before anything is measured.
   *
   * @throws PruneError BAD_OPTION, UNKNOWN_TENSOR, or what is wrong with the folder of `like`
   */
  abstract checkSavable(options?: SaveOptions): Promise<void>;

  /**
   * Writes the pruned model as a new checkpoint.
   *
   * @param target - a folder that does not exist or is empty
   * @throws PruneError BAD_PLAN where the model was not pruned, TARGET_EXISTS before any work
   */
  async save(target: string, options: SaveOptions = {}): Promise<Manifest> {
    if (this.#plan) return this.saveBy(this.#plan, target, options);
    throw new PruneError("BAD_PLAN", "the model was not pruned: there is nothing to save", { hint: "call prune() first" });
  }

  /** Ends what the shim holds of the model for this side. */
  abstract close(): Promise<void>;

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Writes the model as a plan makes it. */
  protected abstract saveBy(plan: PlanFile, target: string, options: SaveOptions): Promise<Manifest>;
}
