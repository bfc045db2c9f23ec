import { LIVE_PARENT, type Manifest } from "../checkpoint/manifest.js";
import type { PlanFile } from "../checkpoint/planFile.js";
import { checkTarget } from "../checkpoint/staging.js";
import { makeChild, recordOf } from "../childFolder.js";
import type { ForwardArgs } from "../data/args.js";
import { PruneError } from "../errors.js";
import type { Network, Parent } from "../inspect.js";
import type { RunOptions } from "../progress.js";
import type { Ask, Asks } from "../shim/feed.js";
import { saveModel } from "../shim/modelWork.js";
import type { ShimSession } from "../shim/session.js";
import { tokenize } from "../shim/storageWork.js";
import { gatherFiles } from "../sideContent.js";
import { type JobModel, readJobNetwork } from "./jobNetwork.js";
import { checkLiveChild, layOutLiveChild } from "./liveChild.js";
import { Model, type SaveOptions } from "./model.js";
import type { ModelView } from "./view.js";

/** What is known of a job's model that the job itself does not tell. */
export interface AttachedModelOptions {
  /**
   * The checkpoint that the job was loaded from and has not trained since. Scores are then those of this checkpoint: it can be planned and
   * sliced by them. Default: they are those of this job at the step that it has reached when its model is asked for, and stored ones of
   * another are refused.
   */
  readonly checkpoint?: string | Parent | undefined;
  /** A folder with the model's tokenizer, which the shim reads. Default: none, and data are token ids. */
  readonly tokenizer?: string | undefined;
}

/**
 * The model of a job that the shim is a guest of, on all ranks of the job. The job keeps it, and it stays whole. One handle stands for one step
 * of a job that trains: for its scores at a later one, ask for the model again.
 */
export class AttachedModel extends Model {
  readonly #session: ShimSession;
  readonly #job: JobModel;
  readonly #tokenizer: string | undefined;
  readonly parent: Network;

  private constructor(session: ShimSession, job: JobModel, parent: Network, tokenizer: string | undefined) {
    super(session);
    this.#session = session;
    this.#job = job;
    this.#tokenizer = tokenizer;
    this.parent = parent;
  }

  /** @internal Models of jobs are had by {@link Bridge.attachedModel}. */
  static async of(session: ShimSession, { checkpoint, tokenizer }: AttachedModelOptions): Promise<AttachedModel> {
    const { attached, bootId } = await session.shimNow();
    const [job] = attached;
    if (!job) {
      throw new PruneError("BAD_OPTION", "the shim is no guest of a job: it has no model of its own", {
        hint: 'open one: bridge.open("/path/to/checkpoint")',
      });
    }
    return new AttachedModel(session, job, await readJobNetwork(job, bootId, checkpoint), tokenizer);
  }

  /** What the job runs it in, as torch spells it. */
  get dtype(): string {
    return this.#job.dtype;
  }

  /** Token ids of texts, by the tokenizer that the options named. Throws BAD_OPTION where there is none. */
  async tokenize(texts: readonly string[], options: RunOptions = {}): Promise<BigInt64Array> {
    if (this.#tokenizer !== undefined) return tokenize(this.#session, this.#tokenizer, texts, options);
    throw new PruneError("BAD_OPTION", "the model of a job comes without a tokenizer, and the data are text", {
      hint: 'name its folder: bridge.attachedModel({ tokenizer: "/path/to/tokenizer" }); or give token ids',
    });
  }

  /** As of any model. Throws BAD_OPTION, too, by a plan whose layers have sizes of their own. */
  override prune(plan: PlanFile): void {
    if (plan.layers) {
      throw new PruneError("BAD_OPTION", "layers of sizes of their own cannot be saved from a job", {
        hint: "slice the checkpoint by the plan, or prune with { uniform: true }",
      });
    }
    super.prune(plan);
  }

  checkViewable(): never {
    throw new PruneError("BAD_OPTION", "the model of a job cannot be run as a plan would make it: candidates cannot be judged on it", {
      hint: "leave scoreFunc out, and the largest candidate within bounds is taken; or open its checkpoint in a shim of its own",
    });
  }

  async view(): Promise<ModelView> {
    return this.checkViewable();
  }

  /** Throws BAD_OPTION: what one batch gives back lies on many ranks. */
  override async forward(_args: ForwardArgs, _options?: RunOptions): Promise<never> {
    throw noAnswers();
  }

  /** Throws BAD_OPTION, as {@link forward} does. */
  override async outputs(_args: ForwardArgs, _options?: RunOptions): Promise<never> {
    throw noAnswers();
  }

  /** The job goes on with its model, and needs no word of it. */
  async close(): Promise<void> {}

  async checkSavable(options: SaveOptions = {}): Promise<void> {
    formatOf(options);
    await checkLiveChild(this.#job, this.parent, options);
  }

  /** Written by all ranks of the job together, each of which has its own share of the weights; the job is left as it was. */
  protected async saveBy(plan: PlanFile, target: string, options: SaveOptions): Promise<Manifest> {
    const { flush = true, sha256 = false } = options;
    const format = formatOf(options);
    const { files: beside, ...child } = await layOutLiveChild(this.#job, this.parent, plan, options);
    await checkTarget(target);
    const { layout, indexSets, shards } = child;
    const origin = { parent: { path: LIVE_PARENT, fingerprint: this.parent.fingerprint ?? "" } };
    return makeChild(target, {
      ...recordOf({ layout, format, indexSets, shards, save: undefined, torchDist: undefined }, child.plan, origin),
      files: await gatherFiles(beside),
      flush,
      resumes: false,
      cut: (jobDir) => saveModel(this.#session, this.#job.modelId, { jobDir, indexSets, shards, flush, sha256 }, options),
      // Another process that saves has weights of another moment.
      findTheirs: async () => undefined,
    });
  }

  protected async modelId(): Promise<string> {
    if (!this.plan) return this.#job.modelId;
    throw new PruneError("BAD_OPTION", "the job's own model stays whole, and the pruned one cannot be run in it", {
      hint: "save it, and open the child in a shim of its own",
    });
  }

  protected override asked(asks: Asks): Asks {
    return withoutAnswers(asks);
  }
}

async function* withoutAnswers(asks: Asks): AsyncGenerator<Ask, void, void> {
  for await (const ask of asks) {
    if (ask.returns !== undefined) throw noAnswers();
    yield ask;
  }
}

function formatOf({ format = "safetensors" }: SaveOptions): "safetensors" {
  if (format === "safetensors") return format;
  throw new PruneError("BAD_OPTION", `a child of live weights is written as safetensors, and not as ${format}`, {
    hint: "have the job save its own checkpoint, and slice that",
  });
}

function noAnswers(): PruneError {
  return new PruneError("BAD_OPTION", "the model of a job on many ranks gives back neither logits nor a batch's own loss", {
    hint: "model.loss(batches) gives the mean over batches; in a forward loop, call forward(batch) without returns",
  });
}
