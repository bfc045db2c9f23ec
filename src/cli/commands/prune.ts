import { join } from "node:path";
import type { Command } from "commander";
import {
  type BatchShape,
  batchesOf,
  type CalibrationData,
  checkTarget,
  checkWritable,
  outline,
  type Parent,
  PruneError,
  parseModes,
  plan,
  prune,
  type RunOptions,
  readCalibrationData,
  readScoreFile,
  readWeightedParent,
} from "../../index.js";
import { batchShape, command, type DeviceFlags, readExportConfig, withBatchFlags, withDeviceFlags } from "../options.js";
import { type Output, runCommand, withBridge } from "../run.js";
import { formatManifest, formatOutline } from "../tables.js";

interface Flags extends DeviceFlags {
  readonly json?: boolean;
  readonly out: string;
  readonly exportConfig: string;
  readonly mode: string;
  readonly data?: string;
  readonly scores?: string;
  readonly checkpoint?: string;
  readonly seqLength?: number;
  readonly samples: number;
  readonly batchSize: number;
}

/** `prunebridge prune` */
export function pruneCommand(): Command {
  const made = command("prune", "score, rank, plan and slice in one go")
    .argument("<dir>", "checkpoint folder of the parent; it is never changed")
    .requiredOption("--out <dir>", "folder of the child; it must not exist or be empty")
    .requiredOption("--export-config <json>", "sizes to keep, as JSON or as the path of a JSON file")
    .option("--data <file>", "calibration data: .safetensors with input_ids, .jsonl with text, or .txt")
    .option("--scores <file>", "use this score file instead of calibrating")
    .option("--checkpoint <dir>", "keep scores and plan in this folder, and use scores that are there")
    .option("--mode <name>", "the pruning mode", "mcore_gpt_minitron");
  return withDeviceFlags(withBatchFlags(made)).action((dir: string, flags: Flags) =>
    runCommand(flags, (options) => pruneCheckpoint(dir, flags, options)),
  );
}

async function pruneCheckpoint(dir: string, flags: Flags, options: RunOptions): Promise<Output> {
  parseModes(flags.mode);
  const parent = await readWeightedParent(dir);
  const exportConfig = await readExportConfig(flags.exportConfig);
  const outlined = outline(parent, exportConfig);
  await checkTarget(flags.out, parent.checkpoint.dir);
  if (flags.checkpoint !== undefined) await checkWritable(join(flags.checkpoint, "scores.safetensors"));
  const { data, shape } = await checkInputs(parent, exportConfig, flags);
  if (!flags.json) process.stderr.write(`${formatOutline(outlined)}\n`);

  const manifest = await withBridge(async (bridge) => {
    const model = await bridge.open(parent, { device: flags.device, dtype: flags.dtype });
    const dataLoader = data && batchesOf(data, model, shape);
    const { scores, checkpoint } = flags;
    const { subnet } = await prune(model, flags.mode, { export_config: exportConfig }, null, {
      dataLoader,
      scores,
      checkpoint,
      ...options,
    });
    return subnet.save(flags.out, options);
  });
  return {
    json: { out: flags.out, ...manifest, hyperparameters: outlined.child.hyperparameters, warnings: outlined.warnings },
    text: formatManifest(flags.out, manifest),
  };
}

async function checkInputs(
  parent: Parent,
  exportConfig: unknown,
  flags: Flags,
): Promise<{ data: CalibrationData | undefined; shape: BatchShape }> {
  const shape = batchShape(flags, parent.checkpoint.config);
  if (flags.scores !== undefined) {
    // Ranked once now, so that a wrong score file is refused before anything starts.
    plan(parent, exportConfig, { scores: await readScoreFile(flags.scores), path: flags.scores });
    return { data: undefined, shape };
  }
  if (flags.data === undefined && flags.checkpoint === undefined) {
    throw new PruneError("BAD_OPTION", "prune needs --data to calibrate with, or --scores", {
      hint: "--data takes .safetensors, .jsonl or .txt",
    });
  }
  const data =
    flags.data === undefined ? undefined : await readCalibrationData(flags.data, parent.architecture.hyperparameters.vocab_size, shape);
  return { data, shape };
}
