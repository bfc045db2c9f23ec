import type { Command } from "commander";
import { batchesOf, checkWritable, type OpenOptions, readCalibrationData, readRunnableParent, score, writeScoreFile } from "../../index.js";
import { batchShape, command, type DeviceFlags, type ShimFlags, withBatchFlags, withDeviceFlags, withShimFlags } from "../options.js";
import { runCommand, withBridge } from "../run.js";

interface Flags extends DeviceFlags, ShimFlags {
  readonly json?: boolean;
  readonly data: string;
  readonly out: string;
  readonly seqLength?: number;
  readonly samples: number;
  readonly batchSize: number;
}

/** `prunebridge score` */
export function scoreCommand(): Command {
  const made = command("score", "measure the importance of every channel, head, group and layer over calibration data")
    .argument("<dir>", "checkpoint folder")
    .requiredOption("--data <file>", "calibration data: .safetensors with input_ids, .jsonl with text, or .txt")
    .requiredOption("--out <file>", "the score file to write");
  return withShimFlags(withDeviceFlags(withBatchFlags(made))).action((dir: string, flags: Flags) =>
    runCommand(flags, async (options) => {
      const parent = await readRunnableParent(dir);
      await checkWritable(flags.out);
      const shape = batchShape(flags, parent.checkpoint.config);
      const data = await readCalibrationData(flags.data, parent.architecture.hyperparameters.vocab_size, shape);
      const scores = await withBridge(flags, async (bridge) => {
        const opened: OpenOptions = { device: flags.device, dtype: flags.dtype };
        const model = await bridge.open(parent, opened);
        const measured = await score(model, model.parent, batchesOf(data, model, shape), options);
        await writeScoreFile(flags.out, measured);
        return measured;
      });
      const { batches, samples, tokens } = scores.provenance;
      return {
        json: { out: flags.out, batches: Number(batches), samples: Number(samples), tokens: Number(tokens) },
        text: `wrote ${flags.out}: importances over ${samples} sequences, ${tokens} tokens`,
      };
    }),
  );
}
