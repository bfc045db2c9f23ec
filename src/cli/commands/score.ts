import type { Command } from "commander";
import { batchesOf, checkWritable, readCalibrationData, score, writeScoreFile } from "../../index.js";
import { batchShape, command, withBatchFlags, withDeviceFlags, withShimFlags, withTokenizerFlag } from "../options.js";
import { runCommand } from "../run.js";
import { type ModelFlags, withModel } from "../withModel.js";

interface Flags extends ModelFlags {
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
    .argument("[dir]", "checkpoint folder; attached to a job: the checkpoint whose weights it has, where it has not trained since")
    .requiredOption("--data <file>", "calibration data: .safetensors with input_ids, .jsonl with text, or .txt")
    .requiredOption("--out <file>", "the score file to write");
  return withShimFlags(withTokenizerFlag(withDeviceFlags(withBatchFlags(made)))).action((dir: string | undefined, flags: Flags) =>
    runCommand(flags, async (options) => {
      const scores = await withModel(dir, flags, {
        prepare: async ({ architecture, checkpoint }) => {
          await checkWritable(flags.out);
          const shape = batchShape(flags, checkpoint.config);
          return { shape, data: await readCalibrationData(flags.data, architecture.hyperparameters.vocab_size, shape) };
        },
        run: async (model, { shape, data }) => {
          const measured = await score(model, model.parent, batchesOf(data, model, shape), options);
          await writeScoreFile(flags.out, measured);
          return measured;
        },
      });
      const { batches, samples, tokens } = scores.provenance;
      return {
        json: { out: flags.out, batches: Number(batches), samples: Number(samples), tokens: Number(tokens) },
        text: `wrote ${flags.out}: importances over ${samples} sequences, ${tokens} tokens`,
      };
    }),
  );
}
