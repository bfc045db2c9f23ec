import type { Command } from "commander";
import { checkTarget, readPlanFor, readWeightedParent, slice } from "../../index.js";
import { command } from "../options.js";
import { runCommand, withBridge } from "../run.js";
import { formatManifest } from "../tables.js";

interface Flags {
  readonly json?: boolean;
  readonly plan: string;
  readonly out: string;
}

/** `prunebridge slice` */
export function sliceCommand(): Command {
  return command("slice", "cut a checkpoint by a plan into a new folder (needs Python, but no torch)")
    .argument("<dir>", "checkpoint folder of the parent")
    .requiredOption("--plan <file>", "the plan that `prunebridge plan --out` wrote")
    .requiredOption("--out <dir>", "folder of the child; it must not exist or be empty")
    .action((dir: string, flags: Flags) =>
      runCommand(flags, async (options) => {
        const parent = await readWeightedParent(dir);
        const plan = await readPlanFor(parent, flags.plan);
        await checkTarget(flags.out, parent.checkpoint.dir);
        const manifest = await withBridge((bridge) => slice(bridge, parent, plan, flags.out, options));
        return { json: { out: flags.out, ...manifest }, text: formatManifest(flags.out, manifest) };
      }),
    );
}
