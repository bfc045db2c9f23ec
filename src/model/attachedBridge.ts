import { type ErrorCode, PruneError } from "../errors.js";
import { hintOnHangUp } from "../shim/connectionHints.js";
import type { Endpoint } from "../shim/endpoint.js";
import type { Timeouts } from "../shim/options.js";
import { ShimSession } from "../shim/session.js";
import { Bridge, CLIENT } from "./bridge.js";

const OUT_OF_REACH: readonly ErrorCode[] = ["SHIM_UNREACHABLE", "SHIM_STALLED"];

/** A bridge to a shim that others use too. */
export class AttachedBridge extends Bridge {
  readonly #session: ShimSession;
  readonly #address: string;
  readonly #end: () => Promise<void>;
  #closed: Promise<void> | undefined;

  private constructor(session: ShimSession, { address }: Endpoint, end: () => Promise<void>) {
    super(session);
    this.#session = session;
    this.#address = address;
    this.#end = end;
  }

  /** Connects to a shim that runs already; `end` is called when the bridge was closed. */
  static async over(endpoint: Endpoint, timeouts?: Partial<Timeouts>, end = async (): Promise<void> => {}): Promise<AttachedBridge> {
    try {
      return new AttachedBridge(await ShimSession.attach(endpoint, CLIENT, timeouts), endpoint, end);
    } catch (error) {
      throw attachError(error, endpoint.address);
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /** Closes, but keeps to itself that the shim is out of reach: an error of the block that ends would be lost in that. */
  override async [Symbol.asyncDispose](): Promise<void> {
    await this.close().catch((error: unknown) => {
      if (!(error instanceof PruneError && OUT_OF_REACH.includes(error.code))) throw error;
    });
  }

  async #close(): Promise<void> {
    try {
      await this.#session.detach();
    } catch (cause) {
      if (!(cause instanceof PruneError)) throw cause;
      const detail = `models that were opened through this bridge may still be open in the shim at ${this.#address}: ${cause.detail}`;
      throw new PruneError(cause.code, detail, { hint: cause.hint, cause });
    } finally {
      await this.#end();
    }
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
