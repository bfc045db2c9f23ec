import { randomUUID } from "node:crypto";
import { throwIfCancelled } from "../cancel.js";
import type { Manifest } from "../checkpoint/manifest.js";
import type { ForwardArgs } from "../data/args.js";
import { toDummyBatch } from "../data/networkArgs.js";
import { PruneError } from "../errors.js";
import type { NetworkChild } from "../policy/network/child.js";
import type { NetworkCosts } from "../policy/network/costs.js";
import type { NetworkFacts } from "../policy/network/facts.js";
import type { RunOptions } from "../progress.js";
import { closeModel, cutModel, openSubnet } from "../shim/modelWork.js";
import { type CalibratedNorms, type OpenedNetwork, openNetwork, traceNetwork } from "../shim/networkWork.js";
import { checkPython } from "../shim/runWork.js";
import type { ShimSession } from "../shim/session.js";
import { calibrateBy } from "./calibrateBy.js";
import { liveSlices } from "./liveCut.js";
import { type LoadOptions, parseLoadOptions } from "./loadOptions.js";
import { NetworkRunner } from "./networkRunner.js";
import { type NetworkSource, readNetworkSource } from "./networkSource.js";
import { NetworkView } from "./networkView.js";
import type { NormsSource } from "./runnableNetwork.js";
import { type NetworkSaveOptions, saveNetworkChild } from "./saveNetworkChild.js";

/** How a network was pruned. */
export interface PrunedNetwork {
  /** The mode, `fastnas` for one. */
  readonly mode: string;
  /** How many channels each hyperparameter keeps. */
  readonly sizes: Readonly<Record<string, number>>;
  readonly child: NetworkChild;
  readonly costs: { readonly parent: NetworkCosts; readonly child: NetworkCosts };
}

/** Any PyTorch network that a shim has open: it can be run, traced, judged and cut. After pruning it is the pruned network. */
export class NetworkModel extends NetworkRunner implements AsyncDisposable {
  readonly #session: ShimSession;
  readonly #opened: OpenedNetwork;
  #state: "whole" | "cut" | "lost" | "closed" = "whole";
  #pruned: PrunedNetwork | undefined;
  #views = 0;
  #norms = "none";
  /** Where it was loaded from. */
  readonly source: NetworkSource;

  private constructor(session: ShimSession, source: NetworkSource, opened: OpenedNetwork) {
    super(session);
    this.#session = session;
    this.#opened = opened;
    this.source = source;
  }

  /** @internal Networks are loaded by {@link Bridge.load}. */
  static async load(session: ShimSession, given: LoadOptions): Promise<NetworkModel> {
    const load = parseLoadOptions(given);
    if (load.kind === "built") checkPython(session, load.entrypoint);
    const source = await readNetworkSource(load);
    if (source.entrypoint) checkPython(session, source.entrypoint);
    return new NetworkModel(session, source, await openNetwork(session, source.origin, load, load.options));
  }

  /** Where it runs, as torch spells it. */
  get device(): string {
    return this.#opened.device;
  }

  /** What it runs in, as torch spells it. */
  get dtype(): string {
    return this.#opened.dtype;
  }

  /** What statistics of normalisation layers are of: `none` but what was loaded, or a name for what calibrated them last. */
  get norms(): string {
    return this.#norms;
  }

  /** How it was pruned, if it was. */
  get pruned(): PrunedNetwork | undefined {
    return this.#pruned;
  }

  /**
   * Finds which channels are one, what has them and what they cost.
   *
   * @param dummyInput - arguments of forward, for whose batch size operations are counted
   * @throws PruneError BAD_OPTION where it is no arguments; BAD_DATA where the network does not run on it; MISSING_DEPENDENCY without
   *   torch-pruning
   */
  async trace(dummyInput: ForwardArgs, options: RunOptions = {}): Promise<NetworkFacts> {
    const dummy = toDummyBatch(dummyInput);
    return traceNetwork(this.#session, await this.modelId(), dummy, options);
  }

  /**
   * Makes running statistics of normalisation layers those of batches. Where there are no such layers the network runs nothing; the data is
   * drawn all the same.
   *
   * @throws PruneError BAD_DATA, PYTHON_DENIED or PYTHON_FAILED; what a loop or an iterable throws, as it is
   */
  async calibrateNorms(source: NormsSource, options: RunOptions = {}): Promise<CalibratedNorms> {
    const calibrated = await calibrateBy(this.#session, await this.modelId(), source, options);
    if (calibrated.layers > 0) this.#norms = randomUUID();
    return calibrated;
  }

  /** Looks at the network as it would be as a child, without changing it. Close what is looked at before the network is pruned. */
  async view(child: NetworkChild, options: RunOptions = {}): Promise<NetworkView> {
    this.#checkUnpruned();
    const viewId = await openSubnet(this.#session, await this.modelId(), { ...child, tensors: liveSlices(child.tensors) }, options);
    this.#views += 1;
    return new NetworkView(this.#session, viewId, () => {
      this.#views -= 1;
    });
  }

  /**
   * Cuts the network where it stands.
   *
   * @throws PruneError BAD_PLAN where it was pruned before, BAD_OPTION where a view of it is open, CANCELLED where the signal has fired; a cut
   *   that fails once it has begun leaves no network
   */
  async prune(pruned: PrunedNetwork, options: RunOptions = {}): Promise<void> {
    this.checkPrunable();
    throwIfCancelled(options.signal);
    const modelId = await this.modelId();
    try {
      await cutModel(this.#session, modelId, { ...pruned.child, tensors: liveSlices(pruned.child.tensors) }, options);
    } catch (error) {
      const nothingStarted = error instanceof PruneError && error.kind === "input";
      if (!nothingStarted) {
        this.#state = "lost";
        await closeModel(this.#session, modelId).catch(() => {}); // a cut that had begun leaves no model
      }
      throw error;
    }
    this.#state = "cut";
    this.#pruned = pruned;
  }

  /** Throws BAD_PLAN where the network was pruned before, BAD_OPTION where a view of it is open. */
  checkPrunable(): void {
    this.#checkUnpruned();
    if (this.#views === 0) return;
    throw new PruneError("BAD_OPTION", `${this.#views} views of this network are open`, { hint: "close them before it is pruned" });
  }

  #checkUnpruned(): void {
    if (!this.#pruned) return;
    throw new PruneError("BAD_PLAN", "this network was pruned already", {
      hint: "load the whole one again; or save this one, load that, and prune it",
    });
  }

  /**
   * Writes the pruned network: a plain checkpoint of Hugging Face where a config expresses it, else its weights and an `architecture.json`.
   *
   * @param target - a folder that does not exist or is empty
   * @throws PruneError BAD_PLAN where the network was not pruned, TARGET_EXISTS or PATH_DENIED before any work
   */
  async save(target: string, options: NetworkSaveOptions = {}): Promise<Manifest> {
    if (this.#pruned) return saveNetworkChild(this.#session, await this.modelId(), this.source, this.#pruned, target, options);
    throw new PruneError("BAD_PLAN", "the network was not pruned: there is nothing to save", { hint: "call prune() first" });
  }

  /** Frees what the shim holds. Safe to call twice. */
  async close(): Promise<void> {
    if (this.#state === "closed" || this.#state === "lost") return;
    this.#state = "closed";
    await closeModel(this.#session, this.#opened.modelId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  protected async modelId(): Promise<string> {
    if (this.#state === "whole" || this.#state === "cut") return this.#opened.modelId;
    const what = this.#state === "closed" ? "was closed" : "was lost in a cut that failed";
    throw new PruneError("BAD_OPTION", `this network ${what}`, { hint: "load it again" });
  }
}
