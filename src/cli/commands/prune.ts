import { type Command, Option } from "commander";
import {
  checkTarget,
  formatCandidates,
  formatOutline,
  formatSpace,
  LAYOUT_NAMES,
  type OpenedModel,
  PruneError,
  prune,
  type RunOptions,
} from "../../index.js";
import { checkGradientInputs, refuseGradientFlags } from "../gradientInputs.js";
import { command, positiveInteger, withBatchFlags, withDeviceFlags, withShimFlags, withTokenizerFlag } from "../options.js";
import { checkInputs, type PruneFlags } from "../pruneInputs.js";
import { type Output, runCommand } from "../run.js";
import { withBoundFlags, withSpaceFlags } from "../searchFlags.js";
import { formatManifest } from "../tables.js";
import { withModel } from "../withModel.js";

/** `prunebridge prune` */
export function pruneCommand(): Command {
  const made = command("prune", "score, rank, plan and slice in one go: to given sizes, or to the best sizes within bounds")
    .argument("[dir]", "checkpoint folder of the parent; it is never changed; attached to a job: the checkpoint whose weights it has")
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
    .option("--mode <name>", "the pruning mode", "mcore_gpt_minitron")
    .option("--loss <name>", "gradnas: what gradients are of: causal_lm, masked_lm, sequence_classification, mse, or a Python function")
    .option("--uniform", "gradnas: keep all layers alike, so that a config.json describes the child")
    .option("--feature-divisor <n>", "gradnas: what kept channels are a multiple of (default: 32)", positiveInteger)
    .addOption(new Option("--layout <name>", "lay the child out so, and not as its parent is").choices(LAYOUT_NAMES))
    .option(
      "--like <dir>",
      "attached to a job: give the child the config, tokenizer and other files of this checkpoint of the same network",
    );
  return withShimFlags(withTokenizerFlag(withDeviceFlags(withBatchFlags(withSpaceFlags(withBoundFlags(made)))))).action(
    (dir: string | undefined, flags: PruneFlags) => runCommand(flags, (options) => pruneCheckpoint(dir, flags, options)),
  );
}

async function pruneCheckpoint(dir: string | undefined, flags: PruneFlags, options: RunOptions): Promise<Output> {
  const { layout, like } = flags;
  if (flags.mode === "gradnas") return pruneByGradients(dir, flags, options);
  if (flags.mode === "fastnas") throw notHere();
  refuseGradientFlags(flags);
  if (like !== undefined && flags.attach === undefined) {
    throw new PruneError("BAD_OPTION", "--like is for the model of a job: a child that is cut from a checkpoint gets its files", {
      hint: "leave --like out, or give the --attach of a job",
    });
  }
  const saved = { ...options, ...(layout && { layout }), ...(like !== undefined && { like }) };
  const say = tellerFor(flags);
  return withModel(dir, flags, {
    prepare: async (network) => {
      const inputs = await checkInputs(network, flags);
      await checkTarget(flags.out, "dir" in network.checkpoint ? network.checkpoint.dir : undefined);
      say(inputs.target.kind === "sizes" ? formatOutline(inputs.target.outline) : formatSpace(inputs.target.found));
      return inputs;
    },
    optionsOf: ({ allowPython }) => ({ allowPython }),
    run: async (model, inputs) => {
      await model.checkSavable(saved);
      const config = { ...inputs.configFor(model), ...options };
      const { subnet, stateDict } = await prune(model, [[flags.mode, inputs.modeOptions]], inputs.constraints, null, config);
      if (stateDict.search) say(formatCandidates({ ...stateDict.search, candidates: [] }, stateDict.search.candidates));
      if (inputs.target.kind === "bounds") say(formatOutline(stateDict.plan));
      const manifest = await subnet.save(flags.out, saved);
      const { child, warnings } = stateDict.plan;
      return {
        json: { out: flags.out, ...manifest, hyperparameters: child.hyperparameters, warnings, best: stateDict.best },
        text: formatManifest(flags.out, manifest),
      };
    },
  });
}

async function pruneByGradients(dir: string | undefined, flags: PruneFlags, options: RunOptions): Promise<Output> {
  const saved = { ...options, ...(flags.layout && { layout: flags.layout }) };
  if (dir === undefined && flags.attach !== undefined) {
    throw new PruneError("BAD_OPTION", "--mode gradnas prunes a checkpoint, and no model of a job", { hint: "name a checkpoint folder" });
  }
  return withModel(dir, flags, {
    prepare: async (network) => {
      const inputs = await checkGradientInputs(network, flags);
      await checkTarget(flags.out, "dir" in network.checkpoint ? network.checkpoint.dir : undefined);
      return inputs;
    },
    optionsOf: ({ allowPython }) => ({ allowPython }),
    run: async (model, { constraints, modeOptions, dummyInput, configFor }) => {
      await model.checkSavable(saved);
      const config = { ...configFor(model), ...options, verbose: tellerFor(flags) };
      const opened = model as OpenedModel; // prune() looks whether it is
      const { subnet, stateDict } = await prune(opened, [["gradnas", modeOptions]], constraints, dummyInput, config);
      const manifest = await subnet.save(flags.out, saved);
      const { layers, warnings } = stateDict.plan;
      return {
        json: { out: flags.out, ...manifest, layers, warnings, best: stateDict.best, costs: stateDict.costs },
        text: [...warnings.map((warning) => `warning: ${warning}`), formatManifest(flags.out, manifest)].join("\n"),
      };
    },
  });
}

function tellerFor({ json }: PruneFlags): (text: string) => unknown {
  return (text) => !json && process.stderr.write(`${text}\n`);
}

function notHere(): PruneError {
  return new PruneError("BAD_MODE", "fastnas prunes networks that Python code builds, by a score function: not from the command line", {
    hint: "call prune() on what bridge.load() gives",
  });
}
