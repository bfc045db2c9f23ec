import type { Command } from "commander";
import { batchesOf, type RunOptions, readCalibrationData, verify } from "../../index.js";
import { batchShape, command, type DeviceFlags, withBatchFlags, withDeviceFlags } from "../options.js";
import { runCommand, withBridge } from "../run.js";

interface Flags extends DeviceFlags {
  readonly json?: boolean;
  readonly load?: boolean;
  readonly data?: string;
  readonly seqLength?: number;
  readonly samples: number;
  readonly batchSize: number;
}

/** `prunebridge verify` */
export function verifyCommand(): Command {
  const made = command("verify", "check a pruned checkpoint: shapes, checksums, plan; on request that it loads and what its loss is")
    .argument("<dir>", "checkpoint folder of the child")
    .option("--load", "load it as transformers would, and refuse missing or unexpected tensors (needs torch)")
    .option("--data <file>", "also evaluate its loss on this data (needs torch)");
  return withDeviceFlags(withBatchFlags(made)).action((dir: string, flags: Flags) =>
    runCommand(flags, async (options) => {
      const verified = await verify(dir, options);
      const loaded = flags.load || flags.data !== undefined ? await loadAndEvaluate(dir, flags, options) : {};
      return { json: { ...verified, ...loaded }, text: describe(dir, verified, loaded) };
    }),
  );
}

interface Loaded {
  readonly loads?: boolean;
  readonly loss?: number;
}

async function loadAndEvaluate(dir: string, flags: Flags, options: RunOptions): Promise<Loaded> {
  return withBridge(async (bridge) => {
    const model = await bridge.open(dir, { device: flags.device, dtype: flags.dtype });
    const shape = batchShape(flags, model.parent.checkpoint.config);
    const data = flags.data === undefined ? undefined : await readCalibrationData(flags.data, model.hyperparameters.vocab_size, shape);
    await model.load(options);
    return { loads: true, ...(data && { loss: await model.loss(batchesOf(data, model, shape), options) }) };
  });
}

function describe(
  dir: string,
  { manifest, checkedBytes, inspection }: Awaited<ReturnType<typeof verify>>,
  { loads, loss }: Loaded,
): string {
  const lines = [`${dir}: ${inspection.weights?.tensors} tensors have the shapes that config.json makes`];
  const checked = `checksums of ${(checkedBytes / 1e9).toFixed(2)} GB`;
  if (manifest) lines.push(`${checked} and the plan's hash agree with prune_manifest.json`);
  else lines.push(checkedBytes > 0 ? `${checked} agree with those of the save` : "no prune_manifest.json: no checksums to compare");
  if (loads) lines.push("it loads without missing or unexpected tensors");
  if (loss !== undefined) lines.push(`loss ${loss.toFixed(4)} nats per token, perplexity ${Math.exp(loss).toFixed(2)}`);
  return lines.join("\n");
}
