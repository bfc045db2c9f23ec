import { requireRunnable } from "../checkpoint/folder.js";
import type { CutShards } from "../childFolder.js";
import { PruneError } from "../errors.js";
import { type Parent, readRunnableParent } from "../inspect.js";
import type { RunOptions } from "../progress.js";
import type { ShimInfo, ShimSession } from "../shim/session.js";
import { cutShards } from "../shim/storageWork.js";
import type { CutJob, Cutter } from "../slice.js";
import { VERSION } from "../version.js";
import { AttachedModel, type AttachedModelOptions } from "./attachedModel.js";
import type { LoadOptions } from "./loadOptions.js";
import { NetworkModel } from "./networkModel.js";
import { OpenedModel, type OpenOptions } from "./openedModel.js";

/** What a shim is told of who connects. */
export const CLIENT = `prunebridge/${VERSION}`;

/** A connection to one shim: what opens models and cuts checkpoints. */
export abstract class Bridge implements Cutter, AsyncDisposable {
  readonly #session: ShimSession;

  constructor(session: ShimSession) {
    this.#session = session;
  }

  /** What the shim is and can do: version, capabilities, devices, limits, and the rights that the token gives. */
  get shim(): ShimInfo {
    return this.#session.shim;
  }

  /**
   * Opens a checkpoint folder, or one that was read already. Its config, index and every tensor's shape are checked at once; its weights are loaded when they are needed.
   *
   * @throws PruneError as {@link inspect} does; BAD_OPTION where the shim is a guest of a job
   */
  async open(checkpoint: string | Parent, options: OpenOptions = {}): Promise<OpenedModel> {
    this.#refuseGuest();
    const parent = typeof checkpoint === "string" ? await readRunnableParent(checkpoint) : checkpoint;
    requireRunnable(parent.checkpoint);
    return new OpenedModel(this.#session, this, parent, options);
  }

  /**
   * Loads any PyTorch network: one that a Python function builds, a vision checkpoint of Hugging Face, or a pruned network that was saved.
   *
   * @throws PruneError BAD_OPTION, PYTHON_DENIED, PATH_NOT_FOUND, NOT_A_CHECKPOINT, BAD_CONFIG or BAD_SAFETENSORS before anything is loaded;
   *   PYTHON_FAILED or SHIM_LOAD_FAILED then
   */
  async load(options: LoadOptions): Promise<NetworkModel> {
    this.#refuseGuest();
    return NetworkModel.load(this.#session, options);
  }

  /**
   * The model of the job that the shim is a guest of.
   *
   * @throws PruneError BAD_OPTION where it is a guest of none, or the job's model is not that of the checkpoint that is named; BAD_CONFIG or
   *   UNKNOWN_ARCHITECTURE where the model is none that can be pruned
   */
  attachedModel(options: AttachedModelOptions = {}): Promise<AttachedModel> {
    return AttachedModel.of(this.#session, options);
  }

  /** Cuts shards on storage. No weights are loaded, and no torch is needed. */
  cutShards(job: CutJob, options: RunOptions = {}): Promise<CutShards> {
    return cutShards(this.#session, job, options);
  }

  /**
   * Ends a shim that was started, with all that it holds. Of one that was attached to, the models that were opened through this bridge are
   * closed, and it goes on. Safe to call twice.
   */
  abstract close(): Promise<void>;

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #refuseGuest(): void {
    if (this.shim.attached.length === 0) return;
    throw new PruneError("BAD_OPTION", "this shim is a guest of a job, and opens no model beside the job's own", {
      hint: "use bridge.attachedModel(); or slice the checkpoint on storage, by a plan",
    });
  }
}
