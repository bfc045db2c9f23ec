import {
  BUILT_IN_LOSSES,
  batchesOf,
  type DummyInput,
  type GradnasConfig,
  type LayoutName,
  type Model,
  type Network,
  PruneError,
  parseModes,
  python,
  readCalibrationData,
} from "../index.js";
import { batchShape } from "./options.js";
import type { PruneFlags } from "./pruneInputs.js";
import { boundsOf, refuseFlags, SEARCH_ONLY } from "./searchFlags.js";

/** What `prune --mode gradnas` is to do, checked as far as it can be before a shim is started. */
export interface GradientInputs {
  readonly constraints: Record<string, unknown>;
  readonly modeOptions: Record<string, unknown>;
  readonly dummyInput: DummyInput;
  readonly allowPython: readonly string[];
  readonly configFor: (model: Model) => GradnasConfig;
}

/** Flags that say how Minitron searches and judges. */
const OTHERS: readonly (keyof PruneFlags)[] = ["exportConfig", "scores", ...SEARCH_ONLY, "forwardLoop", "like"];

/** Flags of gradnas alone. */
const OWN = ["loss", "uniform", "featureDivisor"] as const satisfies (keyof PruneFlags)[];

/** Refuses flags of gradnas where the mode is another. Throws BAD_OPTION. */
export function refuseGradientFlags(flags: PruneFlags): void {
  refuseFlags(flags, OWN, `--mode ${flags.mode} does not use`, "they are for --mode gradnas");
}

/** Reads and checks everything that the flags name. Throws PruneError before any work is done. */
export async function checkGradientInputs(parent: Network, flags: PruneFlags): Promise<GradientInputs> {
  refuseFlags(flags, OTHERS, "--mode gradnas does not use", "it takes --loss, --data or --data-loader, and --params or --flops");
  const { loss, uniform = false, featureDivisor, data, dataLoader, collectFunc, checkpoint, maxIterDataLoader } = flags;
  const modeOptions = { uniform, ...(featureDivisor !== undefined && { "nn.Linear": { "*": { feature_divisor: featureDivisor } } }) };
  parseModes([[flags.mode, modeOptions]]);
  if (loss === undefined) {
    throw new PruneError("BAD_OPTION", "--mode gradnas needs a --loss", {
      hint: "causal_lm, masked_lm, sequence_classification or mse; or a Python function package.module:function",
    });
  }
  if ((data === undefined) === (dataLoader === undefined)) {
    throw new PruneError("BAD_OPTION", `--mode gradnas needs ${data === undefined ? "" : "only one of "}--data or --data-loader`, {
      hint: "batches with labels come from a --data-loader",
    });
  }
  checkLoss(loss, data !== undefined);
  checkLayout(parent, flags.layout, uniform);
  const shape = batchShape(flags, parent.checkpoint.config);
  const read = data === undefined ? undefined : await readCalibrationData(data, parent.architecture.hyperparameters.vocab_size, shape);
  const lossFunc = loss.includes(":") ? python(loss) : loss;
  const { metricBatchSize = 1, metricSeqLength = shape.seqLength } = flags;
  return {
    constraints: boundsOf(flags),
    modeOptions,
    dummyInput: Array.from({ length: metricBatchSize }, () => new Array<number>(metricSeqLength).fill(0)),
    allowPython: [loss.includes(":") ? loss : undefined, dataLoader, collectFunc].filter((name) => name !== undefined),
    configFor: (model) => ({
      lossFunc: lossFunc as GradnasConfig["lossFunc"], // prune() looks
      dataLoader: read ? batchesOf(read, model, shape) : python(dataLoader ?? ""),
      collectFunc: collectFunc === undefined ? undefined : python(collectFunc),
      maxIterDataLoader,
      checkpoint,
    }),
  };
}

function checkLoss(loss: string, isOfTokens: boolean): void {
  if (loss.includes(":")) return;
  if (!BUILT_IN_LOSSES.some((name) => name === loss)) {
    throw new PruneError("BAD_OPTION", `--loss ${loss} is unknown`, {
      hint: `${BUILT_IN_LOSSES.join(", ")}; or a Python function package.module:function`,
    });
  }
  if (isOfTokens && loss !== "causal_lm") {
    throw new PruneError("BAD_OPTION", `--loss ${loss} goes by labels, and --data has none`, {
      hint: "batches with labels come from a --data-loader",
    });
  }
}

function checkLayout({ architecture: { table } }: Network, layout: LayoutName | undefined, uniform: boolean): void {
  if (uniform || layout === undefined || layout === table.live) return;
  throw new PruneError("BAD_OPTION", `layers of sizes of their own cannot be laid out as ${layout}`, {
    hint: `leave --layout ${layout} out; or keep all layers alike by --uniform`,
  });
}
