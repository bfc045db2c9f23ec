import { createSecureContext, type SecureContext } from "node:tls";
import { throwIfCancelled } from "../cancel.js";
import { PruneError } from "../errors.js";
import { DialIns } from "../shim/dialIns.js";
import { type Endpoint, parseAddress, socketEndpoint } from "../shim/endpoint.js";
import { TIMEOUTS, type Timeouts } from "../shim/options.js";
import { readPem } from "../shim/pem.js";
import { Relay } from "../shim/relay.js";
import { readToken, type Token, type TokenOptions } from "../shim/token.js";
import type { Bridge } from "./bridge.js";

/** How to listen for a job that dials out. */
export interface ListenOptions extends TokenOptions {
  /** The PEM files of a certificate and its key, for TLS. Default: none, which only addresses of this machine itself allow. */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  /** Limits on waiting, in milliseconds, where the defaults do not fit. */
  readonly timeouts?: Partial<Timeouts> | undefined;
}

/** Makes a bridge over an endpoint; `end` is called when it is closed. */
export type Connect = (endpoint: Endpoint, end: () => Promise<void>) => Promise<Bridge>;

/** Where a job dials in that takes no connections itself. Made by {@link Bridge.listen}. */
export class BridgeListener implements AsyncDisposable {
  readonly #dialIns: DialIns;
  readonly #token: Token;
  readonly #connect: Connect;
  readonly #ending = new AbortController();
  #isTaken = false;
  /** `host:port`, with the port that it has. */
  readonly address: string;

  private constructor(dialIns: DialIns, host: string, token: Token, connect: Connect) {
    this.#dialIns = dialIns;
    this.#token = token;
    this.#connect = connect;
    this.address = `${host.includes(":") ? `[${host}]` : host}:${dialIns.port}`;
  }

  /** @internal By {@link Bridge.listen}. */
  static async open(address: string, options: ListenOptions, connect: Connect): Promise<BridgeListener> {
    const { host, port, isLocal } = parseAddress(address);
    const { tls, timeouts } = options;
    if (host === undefined)
      throw new PruneError("BAD_OPTION", "jobs dial in over TCP, not to a unix socket", { hint: 'write "host:port"' });
    if (tls === undefined && !isLocal) {
      throw new PruneError("BAD_OPTION", `other machines reach ${address}, and the token would come from them in the clear`, {
        hint: "give tls: { cert, key }; or listen on 127.0.0.1, at the end of a tunnel",
      });
    }
    const token = await readToken(options, "listening for a job");
    const secure = tls && (await readCertificate(tls));
    const dialIns = await DialIns.listen(host, port, { token, secure, patience: timeouts?.dialIn ?? TIMEOUTS.dialIn });
    return new BridgeListener(dialIns, host, token, connect);
  }

  /**
   * Waits for the job to dial in. A connection that breaks is taken up again when the job has dialled anew, as long as the bridge is open.
   *
   * @param options - `signal` ends the waiting, with CANCELLED: `AbortSignal.timeout(ms)` for a deadline
   * @throws PruneError BAD_OPTION while the bridge to a job is open: another job needs another listener; SHIM_SHUTTING_DOWN where the
   *   listener was closed; as {@link Bridge.attach} does
   */
  async accept({ signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<Bridge> {
    if (this.#isTaken) {
      throw new PruneError("BAD_OPTION", `a job is connected by way of ${this.address} already, or waited for`, {
        hint: "close its bridge first; or listen on another port for another job, with a token of its own",
      });
    }
    this.#isTaken = true;
    try {
      await this.#dialIns.arrival(signal ? AbortSignal.any([signal, this.#ending.signal]) : this.#ending.signal);
      throwIfCancelled(signal);
      if (this.#ending.signal.aborted) throw new PruneError("SHIM_SHUTTING_DOWN", "the listener was closed", { hint: "open another one" });
      return await this.#bridge();
    } catch (error) {
      this.#isTaken = false;
      throw error;
    }
  }

  /** Listens no more. A bridge that is open goes on, without what a broken connection would need. Safe to call twice. */
  close(): void {
    this.#ending.abort();
    this.#dialIns.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  async #bridge(): Promise<Bridge> {
    const relay = await Relay.open(this.#dialIns);
    const endpoint = { ...socketEndpoint(relay.path, this.#token), address: `${this.address}, where a job dialled in` };
    try {
      return await this.#connect(endpoint, async () => {
        this.#isTaken = false;
        await relay.close();
      });
    } catch (error) {
      await relay.close();
      throw error;
    }
  }
}

async function readCertificate({ cert, key }: { cert: string; key: string }): Promise<SecureContext> {
  const [chain, secret] = await Promise.all([readPem(cert, "tls.cert"), readPem(key, "tls.key")]);
  try {
    return createSecureContext({ cert: chain ?? "", key: secret ?? "" });
  } catch (cause) {
    throw new PruneError("BAD_OPTION", `${cert} with the key ${key} cannot be used: ${(cause as Error).message}`, {
      hint: "give a PEM certificate and its own key, without a password",
      cause,
    });
  }
}
