import type { Command } from "commander";
import { checkTarget, formatCandidates, formatOutline, formatSpace, prune, type RunOptions, readRunnableParent } from "../../index.js";
import { command, positiveInteger, withBatchFlags, withDeviceFlags, withShimFlags } from "../options.js";
import { checkInputs, type PruneFlags } from "../pruneInputs.js";
import { type Output, runCommand, withBridge } from "../run.js";
import { withBoundFlags, withSpaceFlags } from "../searchFlags.js";
import { formatManifest } from "../tables.js";

/** `prunebridge prune` */
export function pruneCommand(): Command {
  const made = command("prune", "score, rank, plan and slice in one go: to given sizes, or to the best sizes within bounds")
    .argument("<dir>", "checkpoint folder of the parent; it is never changed")
    .requiredOption("--out <dir>", "folder of the child; it must not exist or be empty")
    .option("--export-config <json>", "sizes to keep, as JSON or as the path of a JSON file")
    .option("--data <file>", "calibration data: .safetensors with input_ids, .jsonl with text, or .txt")
    .option("--scores <file>", "use this score file instead of calibrating")
    .option("--score-data <file>", "under bounds: held-out data, on which the candidate with the least loss wins")
    .option("--score-func <name>", "under bounds: a Python function package.module:function that scores the model it is given")
    .option("--forward-loop <name>", "a Python function that runs the model it is given over calibration data")
    .option("--data-loader <name>", "a Python function that gives calibration batches")
    .option("--collect-func <name>", "a Python function that makes arguments of forward of each such batch")
    .option("--max-iter-data-loader <n>", "calibration batches at most", positiveInteger)
    .option("--checkpoint <dir>", "keep what is found in this folder, and go on with what is there")
    .option("--metric-seq-length <tokens>", "tokens of a sequence, for memory and flops (default: 4096)", positiveInteger)
    .option("--metric-batch-size <n>", "sequences of a batch, for memory and flops (default: 1)", positiveInteger)
    .option("--mode <name>", "the pruning mode", "mcore_gpt_minitron");
  return withShimFlags(withDeviceFlags(withBatchFlags(withSpaceFlags(withBoundFlags(made))))).action((dir: string, flags: PruneFlags) =>
    runCommand(flags, (options) => pruneCheckpoint(dir, flags, options)),
  );
}

async function pruneCheckpoint(dir: string, flags: PruneFlags, options: RunOptions): Promise<Output> {
  const parent = await readRunnableParent(dir);
  const inputs = await checkInputs(parent, flags);
  await checkTarget(flags.out, parent.checkpoint.dir);
  const say = (text: string): unknown => !flags.json && process.stderr.write(`${text}\n`);
  say(inputs.target.kind === "sizes" ? formatOutline(inputs.target.outline) : formatSpace(inputs.target.found));

  return withBridge(
    flags,
    async (bridge) => {
      const model = await bridge.open(parent, { device: flags.device, dtype: flags.dtype });
      const config = { ...inputs.configFor(model), ...options };
      const { subnet, stateDict } = await prune(model, [[flags.mode, inputs.modeOptions]], inputs.constraints, null, config);
      if (stateDict.search) say(formatCandidates({ ...stateDict.search, candidates: [] }, stateDict.search.candidates));
      if (inputs.target.kind === "bounds") say(formatOutline(stateDict.plan));
      const manifest = await subnet.save(flags.out, options);
      const { child, warnings } = stateDict.plan;
      return {
        json: { out: flags.out, ...manifest, hyperparameters: child.hyperparameters, warnings, best: stateDict.best },
        text: formatManifest(flags.out, manifest),
      };
    },
    { allowPython: inputs.allowPython },
  );
}
