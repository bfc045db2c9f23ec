import type { Manifest } from "../checkpoint/manifest.js";
import type { PlanFile } from "../checkpoint/planFile.js";
import { storedDtype } from "../checkpoint/storedDtype.js";
import { checkLayout } from "../childLayout.js";
import { PruneError } from "../errors.js";
import { leftOutOf, type Parent } from "../inspect.js";
import type { RunOptions } from "../progress.js";
import { isPythonRef } from "../pythonRef.js";
import { type CollectedGradients, collectGradients, type GradientRequest } from "../shim/gradientWork.js";
import { closeModel, cutModel, openModel, openSubnet } from "../shim/modelWork.js";
import { checkPython } from "../shim/runWork.js";
import type { ShimSession } from "../shim/session.js";
import { tokenize } from "../shim/storageWork.js";
import { type Cutter, slice } from "../slice.js";
import { liveCut } from "./liveCut.js";
import { Model, type SaveOptions } from "./model.js";
import { refuseQuantized } from "./refuseQuantized.js";

import { ModelView } from "./view.js";

/** How a model is opened. */
export interface OpenOptions extends RunOptions {
  /** As torch spells it, `cuda:1` for one. Default `auto`: the first CUDA device if there is one, else the CPU. */
  readonly device?: string | undefined;
  /** Default `auto`: as the checkpoint has it. */
  readonly dtype?: "auto" | "float32" | "bfloat16" | "float16" | undefined;
}

/**
 * A checkpoint that a shim can run, measure and cut. Weights are loaded when something first needs them: planning from stored scores and
 * slicing on storage never do.
 */
export class OpenedModel extends Model {
  readonly #session: ShimSession;
  readonly #cutter: Cutter;
  readonly #options: OpenOptions;
  #loaded: Promise<string> | undefined;
  #cut: Promise<void> | undefined;
  #views = 0;
  readonly parent: Parent;

  /** @internal Models are opened by {@link Bridge.open}. */
  constructor(session: ShimSession, cutter: Cutter, parent: Parent, options: OpenOptions) {
    super(session);
    this.#session = session;
    this.#cutter = cutter;
    this.parent = parent;
    this.#options = options;
  }

  /** What the model runs in, as torch spells it: as it was opened, or as its checkpoint has it. */
  get dtype(): string {
    const { dtype = "auto" } = this.#options;
    return dtype === "auto" ? storedDtype(this.parent.checkpoint) : dtype;
  }

  /** Token ids of texts, by the checkpoint's own tokenizer. */
  tokenize(texts: readonly string[], options: RunOptions = {}): Promise<BigInt64Array> {
    return tokenize(this.#session, this.parent.checkpoint.dir, texts, options);
  }

  /**
   * Sums the squares of the gradients of masks on the model, which is left as it is.
   *
   * @param request - a loss function of the caller's is given each batch's item
   * @throws PruneError PYTHON_DENIED or PYTHON_FAILED, BAD_DATA that names the batch, or what a loss function throws, as it is
   */
  async collectGradients<Item>(request: GradientRequest<Item>, options: RunOptions = {}): Promise<CollectedGradients> {
    const { source, loss } = request;
    if (!(Symbol.asyncIterator in source)) checkPython(this.#session, source);
    if (isPythonRef(loss)) checkPython(this.#session, loss);
    return collectGradients(this.#session, await this.modelId(options), request, options);
  }

  /** As of any model; what the shim holds is cut when the pruned network is first run. */
  override prune(plan: PlanFile): void {
    this.checkUnpruned();
    if (this.#views > 0)
      throw new PruneError("BAD_OPTION", `${this.#views} views of this model are open`, { hint: "close them before it is pruned" });
    super.prune(plan);
  }

  checkViewable(): void {}

  /**
   * Looks at the model as a plan would make it, without changing it: its slices exist while they run. Close what is looked at before the
   * model is pruned.
   *
   * @throws PruneError BAD_PLAN where it was pruned before
   */
  async view(plan: PlanFile, options: RunOptions = {}): Promise<ModelView> {
    this.checkUnpruned();
    const modelId = await this.modelId(options);
    const viewId = await openSubnet(this.#session, modelId, liveCut(this.parent, plan), options);
    this.#views += 1;
    return new ModelView(this.#session, viewId, plan, () => {
      this.#views -= 1;
    });
  }

  /** Frees the weights that the shim holds. */
  async close(): Promise<void> {
    await this.#loaded?.catch(() => {});
    // One that fails leaves no model to close.
    await this.#cut?.catch(() => {});
    const loaded = await this.#loaded?.catch(() => undefined);
    this.#loaded = undefined;
    this.#cut = undefined;
    if (loaded !== undefined) await closeModel(this.#session, loaded);
  }

  async checkSavable(options: SaveOptions = {}): Promise<void> {
    refuseLike(options);
    checkLayout(this.parent, options);
  }

  /** Cut from the parent's files: the weights need not be loaded. */
  protected async saveBy(plan: PlanFile, target: string, options: SaveOptions): Promise<Manifest> {
    refuseLike(options);
    return slice(this.#cutter, this.parent, plan, target, options);
  }

  /** The shim's id of the model as it is now: loaded, and cut where it was pruned. */
  protected async modelId(options: RunOptions): Promise<string> {
    // What failed may succeed when tried again: memory may be free by then.
    this.#loaded ??= this.#load(options).catch((error: unknown) => {
      this.#loaded = undefined;
      throw error;
    });
    const modelId = await this.#loaded;
    if (!this.plan) return modelId;
    this.#cut ??= this.#cutBy(this.plan, modelId, options).catch((error: unknown) => {
      this.#cut = undefined;
      throw error;
    });
    await this.#cut;
    return modelId;
  }

  async #load(options: RunOptions): Promise<string> {
    const { device = "auto", dtype = "auto" } = this.#options;
    const path = this.parent.checkpoint.dir;
    refuseQuantized(this.parent);
    try {
      return await openModel(this.#session, { path, device, dtype, unreadTensors: leftOutOf(this.parent) }, options);
    } catch (error) {
      if (!(error instanceof PruneError) || error.code !== "SHIM_DIED") throw error;
      throw new PruneError("SHIM_LOAD_FAILED", `while loading ${path}, ${error.detail}`, { hint: error.hint, cause: error });
    }
  }

  async #cutBy(plan: PlanFile, modelId: string, options: RunOptions): Promise<void> {
    try {
      await cutModel(this.#session, modelId, liveCut(this.parent, plan), options);
    } catch (error) {
      const nothingStarted = error instanceof PruneError && error.kind === "input";
      if (!nothingStarted) {
        // A cut that had begun leaves no model, one that had not leaves the parent: the next use loads it again either way.
        await closeModel(this.#session, modelId).catch(() => {});
        this.#loaded = undefined;
      }
      throw error;
    }
  }
}

function refuseLike({ like }: SaveOptions): void {
  if (like === undefined) return;
  throw new PruneError("BAD_OPTION", "a child that is cut from a checkpoint gets its files, and none of another folder", {
    hint: "leave `like` out",
  });
}
