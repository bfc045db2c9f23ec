import type { Command } from "commander";
import { checkTarget, readPlanFor, readWeightedParent, slice } from "../../index.js";
import { command, type ShimFlags, withShimFlags } from "../options.js";
import { runCommand, withBridge } from "../run.js";
import { formatManifest } from "../tables.js";

interface Flags extends ShimFlags {
  readonly json?: boolean;
  readonly plan: string;
  readonly out: string;
}

/** `prunebridge slice` */
export function sliceCommand(): Command {
  const made = command("slice", "cut a checkpoint by a plan into a new folder (needs Python, but no torch)")
    .argument("<dir>", "checkpoint folder of the parent")
    .requiredOption("--plan <file>", "the plan that `prunebridge plan --out` wrote")
    .requiredOption("--out <dir>", "folder of the child; it must not exist or be empty");
  return withShimFlags(made).action((dir: string, flags: Flags) =>
    runCommand(flags, async (options) => {
      const parent = await readWeightedParent(dir);
      const plan = await readPlanFor(parent, flags.plan);
      await checkTarget(flags.out, parent.checkpoint.dir);
      const manifest = await withBridge(flags, (bridge) => slice(bridge, parent, plan, flags.out, options));
      return { json: { out: flags.out, ...manifest }, text: formatManifest(flags.out, manifest) };
    }),
  );
}
