import type { Parent } from "../inspect.js";
import type { Timeouts } from "../shim/options.js";
import { ShimProcess, type SpawnOptions } from "../shim/process.js";
import { ShimSession } from "../shim/session.js";
import type { AttachedModel, AttachedModelOptions } from "./attachedModel.js";
import { Bridge, CLIENT } from "./bridge.js";
import { type LaunchOptions, launchJob } from "./launch.js";

/** What was started for a bridge, and ends with it. */
type OwnProcess = Pick<ShimProcess, "pid" | "stop" | "endpoint" | "died" | "allowPython">;

/** A bridge to a shim of its own. */
export class SpawnedBridge extends Bridge {
  readonly #session: ShimSession;
  readonly #process: OwnProcess;

  protected constructor(session: ShimSession, process: OwnProcess) {
    super(session);
    this.#session = session;
    this.#process = process;
  }

  /** @internal By {@link Bridge.spawn}. */
  static async start(options: SpawnOptions): Promise<SpawnedBridge> {
    const process = await ShimProcess.start(options);
    return new SpawnedBridge(await sessionWith(process, options.timeouts), process);
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

/** A bridge to a job of its own. */
export class LaunchedBridge extends SpawnedBridge {
  readonly #parent: Parent;

  private constructor(session: ShimSession, job: OwnProcess, parent: Parent) {
    super(session, job);
    this.#parent = parent;
  }

  /** @internal By {@link Bridge.launch}. */
  static async launch(options: LaunchOptions): Promise<LaunchedBridge> {
    const { job, parent } = await launchJob(options);
    return new LaunchedBridge(await sessionWith(job, options.timeouts), job, parent);
  }

  /** The job's model, whose scores are those of the checkpoint that was launched. */
  override attachedModel({ checkpoint = this.#parent, ...options }: AttachedModelOptions = {}): Promise<AttachedModel> {
    return super.attachedModel({ checkpoint, ...options });
  }
}

async function sessionWith(process: OwnProcess, timeouts: Partial<Timeouts> | undefined): Promise<ShimSession> {
  try {
    return await ShimSession.open(process.endpoint, CLIENT, process, timeouts);
  } catch (error) {
    await process.stop();
    throw error;
  }
}
