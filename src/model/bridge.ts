import { requireRunnable } from "../checkpoint/folder.js";
import { type ErrorCode, PruneError } from "../errors.js";
import { type Parent, readRunnableParent } from "../inspect.js";
import type { RunOptions } from "../progress.js";
import { hintOnHangUp } from "../shim/connectionHints.js";
import { type AttachOptions, type Endpoint, parseEndpoint } from "../shim/endpoint.js";
import { ShimProcess, type SpawnOptions } from "../shim/process.js";
import { type ShimInfo, ShimSession } from "../shim/session.js";
import { cutShards } from "../shim/storageWork.js";
import type { CutJob, CutShards, Cutter } from "../slice.js";
import { VERSION } from "../version.js";
import { Model, type OpenOptions } from "./model.js";

const CLIENT = `prunebridge/${VERSION}`;
const OUT_OF_REACH: readonly ErrorCode[] = ["SHIM_UNREACHABLE", "SHIM_STALLED"];

/** A connection to one shim: what opens models and cuts checkpoints. */
export abstract class Bridge implements Cutter, AsyncDisposable {
  readonly #session: ShimSession;

  protected constructor(session: ShimSession) {
    this.#session = session;
  }

  /**
   * Starts a shim on this machine. It ends with the bridge, and with this process however that ends.
   *
   * @throws PruneError SHIM_START_FAILED or MISSING_DEPENDENCY
   */
  static async spawn(options: SpawnOptions = {}): Promise<SpawnedBridge> {
    const process = await ShimProcess.start(options);
    try {
      return new SpawnedBridge(await ShimSession.open(process.endpoint, CLIENT, process, options.timeouts), process);
    } catch (error) {
      await process.stop();
      throw error;
    }
  }

  /**
   * Attaches to a shim that runs already, `python -m prunebridge_shim listen` for one. It sees the same storage under the same paths, and
   * goes on when the bridge is closed.
   *
   * @param address - `host:port`, `[ipv6]:port` or `unix:/path`
   * @throws PruneError BAD_OPTION, UNAUTHENTICATED, PROTOCOL_MISMATCH, SHIM_UNREACHABLE or SHIM_STALLED
   */
  static async attach(address: string, options: AttachOptions): Promise<Bridge> {
    const endpoint = await parseEndpoint(address, options);
    try {
      return new AttachedBridge(await ShimSession.attach(endpoint, CLIENT, options.timeouts), endpoint);
    } catch (error) {
      throw attachError(error, address);
    }
  }

  /** What the shim is and can do: version, capabilities, devices, limits, and the rights that the token gives. */
  get shim(): ShimInfo {
    return this.#session.shim;
  }

  /**
   * Opens a checkpoint folder, or one that was read already. Its config, index and every tensor's shape are checked at once; its weights are loaded when they are needed.
   *
   * @throws PruneError as {@link inspect} does
   */
  async open(checkpoint: string | Parent, options: OpenOptions = {}): Promise<Model> {
    const parent = typeof checkpoint === "string" ? await readRunnableParent(checkpoint) : checkpoint;
    requireRunnable(parent.checkpoint);
    return new Model(this.#session, this, parent, options);
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
}

/** A bridge to a shim of its own. */
export class SpawnedBridge extends Bridge {
  readonly #session: ShimSession;
  readonly #process: ShimProcess;

  /** @internal Made by {@link Bridge.spawn}. */
  constructor(session: ShimSession, process: ShimProcess) {
    super(session);
    this.#session = session;
    this.#process = process;
  }

  /** The shim's process id. */
  get pid(): number {
    return this.#process.pid;
  }

  async close(): Promise<void> {
    this.#session.close();
    await this.#process.stop();
  }
}

class AttachedBridge extends Bridge {
  readonly #session: ShimSession;
  readonly #address: string;
  #closed: Promise<void> | undefined;

  constructor(session: ShimSession, { address }: Endpoint) {
    super(session);
    this.#session = session;
    this.#address = address;
  }

  close(): Promise<void> {
    this.#closed ??= this.#session.detach().catch((cause: unknown) => {
      if (!(cause instanceof PruneError)) throw cause;
      const detail = `models that were opened through this bridge may still be open in the shim at ${this.#address}: ${cause.detail}`;
      throw new PruneError(cause.code, detail, { hint: cause.hint, cause });
    });
    return this.#closed;
  }

  /** Closes, but keeps to itself that the shim is out of reach: an error of the block that ends would be lost in that. */
  override async [Symbol.asyncDispose](): Promise<void> {
    await this.close().catch((error: unknown) => {
      if (!(error instanceof PruneError && OUT_OF_REACH.includes(error.code))) throw error;
    });
  }
}

function attachError(error: unknown, address: string): unknown {
  if (!(error instanceof PruneError)) return error;
  if (error.code !== "INTERNAL") {
    const hint = (error.code === "SHIM_UNREACHABLE" && hintOnHangUp(error.detail)) || error.hint;
    return new PruneError(error.code, `attaching to ${address}: ${error.detail}`, { hint, cause: error });
  }
  return new PruneError("SHIM_UNREACHABLE", `what answers at ${address} is no shim: ${error.detail}`, {
    hint: "give the address that the shim told in its readiness line",
    cause: error,
  });
}
