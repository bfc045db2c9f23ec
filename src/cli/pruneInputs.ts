import { join } from "node:path";
import {
  type BatchShape,
  batchesOf,
  type CalibrationData,
  checkWritable,
  type LayoutName,
  type Model,
  type Network,
  negativeLoss,
  outline,
  outlineSearch,
  type PlanOutline,
  type PruneConfig,
  PruneError,
  parseModes,
  plan,
  python,
  readCalibrationData,
  readScoreFile,
  type ScoreFile,
  type SearchOutline,
} from "../index.js";
import { batchShape, readExportConfig } from "./options.js";
import {
  type BoundFlags,
  boundsOf,
  divisorsOf,
  type JudgeFlags,
  refuseSearchFlags,
  type SpaceFlags,
  searchOptionsOf,
} from "./searchFlags.js";
import type { ModelFlags } from "./withModel.js";

/** The flags of `prunebridge prune`. */
export interface PruneFlags extends ModelFlags, BoundFlags, SpaceFlags, JudgeFlags {
  readonly json?: boolean;
  readonly out: string;
  readonly exportConfig?: string;
  readonly mode: string;
  readonly data?: string;
  readonly scores?: string;
  readonly forwardLoop?: string;
  readonly dataLoader?: string;
  readonly collectFunc?: string;
  readonly maxIterDataLoader?: number;
  readonly checkpoint?: string;
  readonly metricSeqLength?: number;
  readonly metricBatchSize?: number;
  readonly seqLength?: number;
  readonly samples: number;
  readonly batchSize: number;
  readonly loss?: string;
  readonly uniform?: boolean;
  readonly featureDivisor?: number;
  readonly layout?: LayoutName;
  readonly like?: string;
}

/** What a run is to do, checked as far as it can be before a shim is started. */
export interface PruneInputs {
  readonly constraints: Record<string, unknown>;
  readonly modeOptions: Record<string, unknown>;
  readonly target: { readonly kind: "sizes"; readonly outline: PlanOutline } | { readonly kind: "bounds"; readonly found: SearchOutline };
  /** What the flags name is what their writer allows. */
  readonly allowPython: readonly string[];
  readonly configFor: (model: Model) => PruneConfig;
}

/** Reads and checks everything that the flags name. Throws PruneError before any work is done. */
export async function checkInputs(parent: Network, flags: PruneFlags): Promise<PruneInputs> {
  const modeOptions = divisorsOf(flags);
  checkMode(flags.mode, modeOptions);
  const exportConfig = flags.exportConfig === undefined ? undefined : await readExportConfig(flags.exportConfig);
  const bounds = boundsOf(flags);
  const constraints = { ...(exportConfig !== undefined && { export_config: exportConfig }), ...bounds };
  if (Object.keys(constraints).length === 0) {
    throw new PruneError("BAD_OPTION", "prune needs sizes or bounds", { hint: "give --export-config, or --params 60% for one" });
  }
  if (exportConfig !== undefined) refuseSearchFlags(flags);
  const rankBy = flags.scores === undefined ? undefined : { scores: await readScoreFile(flags.scores), path: flags.scores };
  const target = aimAt(parent, exportConfig, bounds, flags, rankBy?.scores);
  if (flags.checkpoint !== undefined) await checkWritable(join(flags.checkpoint, "scores.safetensors"));
  if (rankBy) {
    // Ranked once now, so that a wrong score file is refused before anything starts.
    for (const sizes of sizesToRank(target, flags)) plan(parent, sizes, rankBy);
  }
  const { scoreFunc, forwardLoop, dataLoader, collectFunc } = flags;
  const allowPython = [scoreFunc, forwardLoop, dataLoader, collectFunc].filter((name) => name !== undefined);
  allowPython.forEach(python);
  return { constraints, modeOptions, target, allowPython, configFor: await readData(parent, flags) };
}

function checkMode(name: string, options: Record<string, unknown>): void {
  const [mode] = parseModes([[name, options]]);
  if (mode?.name === "mcore_gpt_minitron") return;
  throw new PruneError("BAD_MODE", `mode ${name} is for networks that a script loads, and this command prunes checkpoints of decoders`, {
    hint: 'decoders are pruned by "mcore_gpt_minitron"; for others see prune() in the README',
  });
}

function aimAt(
  parent: Network,
  exportConfig: unknown,
  bounds: Record<string, number | string>,
  flags: PruneFlags,
  scores: ScoreFile | undefined,
): PruneInputs["target"] {
  if (exportConfig === undefined) {
    const options = { ...searchConfigOf(flags), ...divisorsOf(flags), scores };
    return { kind: "bounds", found: outlineSearch(parent, bounds, options) };
  }
  const [bound] = Object.keys(bounds);
  if (bound !== undefined) throw new PruneError("BAD_CONSTRAINTS", `export_config stands alone; it cannot be combined with ${bound}`);
  return { kind: "sizes", outline: outline(parent, exportConfig) };
}

/** The sizes that scores are certain to be asked for: of the largest candidate, and of the others where something judges them. */
function sizesToRank(target: PruneInputs["target"], { scoreData, scoreFunc }: JudgeFlags): readonly unknown[] {
  if (target.kind === "sizes") return [target.outline.exportConfig];
  const { candidates = [] } = target.found;
  const judged = scoreData === undefined && scoreFunc === undefined ? candidates.slice(0, 1) : candidates;
  return judged.map(({ exportConfig }) => exportConfig);
}

function searchConfigOf(flags: PruneFlags): ReturnType<typeof searchOptionsOf> & { seqLength?: number; batchSize?: number } {
  const { metricSeqLength: seqLength, metricBatchSize: batchSize } = flags;
  return { ...searchOptionsOf(flags), ...(seqLength !== undefined && { seqLength }), ...(batchSize !== undefined && { batchSize }) };
}

/** Reads data files now; gives what makes options of them once a model can tokenize. */
async function readData(parent: Network, flags: PruneFlags): Promise<PruneInputs["configFor"]> {
  const shape = batchShape(flags, parent.checkpoint.config);
  const { data, scoreData, scores, checkpoint, forwardLoop, dataLoader, collectFunc, scoreFunc, maxIterDataLoader } = flags;
  const sources = { "--scores": scores, "--data": data, "--forward-loop": forwardLoop, "--data-loader": dataLoader };
  const [first, second] = Object.entries(sources).flatMap(([flag, value]) => (value === undefined ? [] : [flag]));
  if (second !== undefined) throw new PruneError("BAD_OPTION", `${first} and ${second} exclude each other`);
  if (scoreData !== undefined && scoreFunc !== undefined)
    throw new PruneError("BAD_OPTION", "--score-data and --score-func exclude each other");
  if (first === undefined && checkpoint === undefined) {
    throw new PruneError("BAD_OPTION", "prune needs --data to calibrate with, or --scores", {
      hint: "--data takes .safetensors, .jsonl or .txt",
    });
  }
  const calibration = data === undefined ? undefined : await read(data, parent, shape);
  if (scoreData !== undefined) await read(scoreData, parent, shape);
  return (model) => ({
    ...searchConfigOf(flags),
    scores,
    checkpoint,
    maxIterDataLoader,
    dataLoader: dataLoader === undefined ? calibration && batchesOf(calibration, model, shape) : python(dataLoader),
    forwardLoop: forwardLoop === undefined ? undefined : python(forwardLoop),
    collectFunc: collectFunc === undefined ? undefined : python(collectFunc),
    ...(scoreFunc !== undefined && { scoreFunc: python(scoreFunc) }),
    ...(scoreData !== undefined && { scoreFunc: negativeLoss(scoreData, model, shape) }),
  });
}

function read(path: string, { architecture }: Network, shape: BatchShape): Promise<CalibrationData> {
  return readCalibrationData(path, architecture.hyperparameters.vocab_size, shape);
}
