import { type Parent, readWeightedParent } from "../inspect.js";
import type { RunOptions } from "../progress.js";
import { ShimProcess, type SpawnOptions } from "../shim/process.js";
import { type ShimInfo, ShimSession } from "../shim/session.js";
import { cutShards } from "../shim/storageWork.js";
import type { CutJob, CutShards, Cutter } from "../slice.js";
import { VERSION } from "../version.js";
import { Model, type OpenOptions } from "./model.js";

/** A connection to one shim: what opens models and cuts checkpoints. */
export class Bridge implements Cutter, AsyncDisposable {
  readonly #session: ShimSession;
  readonly #process: ShimProcess;

  private constructor(session: ShimSession, process: ShimProcess) {
    this.#session = session;
    this.#process = process;
  }

  /**
   * Starts a shim on this machine. It ends with the bridge, and with this process however that ends.
   *
   * @throws PruneError SHIM_START_FAILED or MISSING_DEPENDENCY
   */
  static async spawn(options: SpawnOptions = {}): Promise<Bridge> {
    const process = await ShimProcess.start(options);
    try {
      return new Bridge(await ShimSession.open(process.address, `prunebridge/${VERSION}`, process, options.timeouts), process);
    } catch (error) {
      await process.stop();
      throw error;
    }
  }

  /** What the shim is and can do: version, capabilities, devices, limits. */
  get shim(): ShimInfo {
    return this.#session.shim;
  }

  /** The shim's process id. */
  get pid(): number {
    return this.#process.pid;
  }

  /**
   * Opens a checkpoint folder, or one that was read already. Its config, index and every tensor's shape are checked at once; its weights are loaded when they are needed.
   *
   * @throws PruneError as {@link inspect} does
   */
  async open(checkpoint: string | Parent, options: OpenOptions = {}): Promise<Model> {
    const parent = typeof checkpoint === "string" ? await readWeightedParent(checkpoint) : checkpoint;
    return new Model(this.#session, this, parent, options);
  }

  /** Cuts shards on storage. No weights are loaded, and no torch is needed. */
  cutShards(job: CutJob, options: RunOptions = {}): Promise<CutShards> {
    return cutShards(this.#session, job, options);
  }

  /** Ends the shim and all that it holds. Safe to call twice. */
  async close(): Promise<void> {
    this.#session.close();
    await this.#process.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
