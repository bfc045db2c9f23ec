import type { Command } from "commander";
import { batchesOf, PruneError, type RunOptions, readCalibrationData, verify } from "../../index.js";
import {
  batchShape,
  command,
  type DeviceFlags,
  positiveInteger,
  type ShimFlags,
  withBatchFlags,
  withDeviceFlags,
  withShimFlags,
} from "../options.js";
import { runCommand, withBridge } from "../run.js";

interface Flags extends DeviceFlags, ShimFlags {
  readonly json?: boolean;
  readonly parent?: string;
  readonly rows?: number;
  readonly full?: boolean;
  readonly load?: boolean;
  readonly data?: string;
  readonly seqLength?: number;
  readonly samples: number;
  readonly batchSize: number;
}

/** `prunebridge verify` */
export function verifyCommand(): Command {
  const made = command(
    "verify",
    "check a pruned checkpoint: shapes, checksums, plan, values; on request that it loads and what its loss is",
  )
    .argument("<dir>", "checkpoint folder of the child")
    .option("--parent <dir>", "the parent's folder, to compare values with (default: where it was when the child was cut)")
    .option("--rows <n>", "rows of each tensor that are compared with the parent's (default: 4)", positiveInteger)
    .option("--full", "compare every byte with the parent's")
    .option("--load", "load it as transformers would, and refuse missing or unexpected tensors (needs torch)")
    .option("--data <file>", "also evaluate its loss on this data (needs torch)");
  return withShimFlags(withDeviceFlags(withBatchFlags(made))).action((dir: string, flags: Flags) =>
    runCommand(flags, async (options) => {
      const { parent, rows, full } = flags;
      const needsShim = flags.load || flags.data !== undefined;
      if (flags.attach !== undefined && !needsShim)
        throw new PruneError("BAD_OPTION", "--attach is for --load and --data: the rest of verify needs no shim");
      const given = { ...(parent !== undefined && { parent }), ...(rows !== undefined && { rows }), ...(full && { full }) };
      const verified = await verify(dir, { ...options, ...given });
      const loaded = needsShim ? await loadAndEvaluate(dir, flags, options) : {};
      return { json: { ...verified, ...loaded }, text: describe(dir, verified, loaded) };
    }),
  );
}

interface Loaded {
  readonly loads?: boolean;
  readonly loss?: number;
}

async function loadAndEvaluate(dir: string, flags: Flags, options: RunOptions): Promise<Loaded> {
  return withBridge(flags, async (bridge) => {
    const model = await bridge.open(dir, { device: flags.device, dtype: flags.dtype });
    const shape = batchShape(flags, model.parent.checkpoint.config);
    const data = flags.data === undefined ? undefined : await readCalibrationData(flags.data, model.hyperparameters.vocab_size, shape);
    await model.load(options);
    return { loads: true, ...(data && { loss: await model.loss(batchesOf(data, model, shape), options) }) };
  });
}

function describe(
  dir: string,
  { manifest, checkedBytes, inspection, values }: Awaited<ReturnType<typeof verify>>,
  { loads, loss }: Loaded,
): string {
  const stating = inspection.layers ? "architecture.json" : "config.json";
  const lines = [`${dir}: ${inspection.weights?.tensors} tensors have the shapes that ${stating} makes`];
  const checked = `checksums of ${formatGB(checkedBytes)}`;
  if (manifest) lines.push(`${checked} and the plan's hash agree with prune_manifest.json`);
  else lines.push(checkedBytes > 0 ? `${checked} agree with those of the save` : "no prune_manifest.json: no checksums to compare");
  lines.push(
    "unchecked" in values
      ? `values were not compared: ${values.unchecked}`
      : `${formatGB(values.bytes)} of ${formatGB(values.ofBytes)} in ${values.tensors} tensors are the parent's, ${values.parent}, at the positions that the plan keeps`,
  );
  if (loads) lines.push("it loads without missing or unexpected tensors");
  if (loss !== undefined) lines.push(`loss ${loss.toFixed(4)} nats per token, perplexity ${Math.exp(loss).toFixed(2)}`);
  return lines.join("\n");
}

function formatGB(bytes: number): string {
  return `${(bytes / 1e9).toFixed(bytes < 1e7 ? 6 : 2)} GB`;
}
