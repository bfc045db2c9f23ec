import { type Command, Option } from "commander";
import {
  checkTarget,
  FORMATS,
  type Format,
  findChild,
  LAYOUT_NAMES,
  type LayoutName,
  readPlanFor,
  readWeightedParent,
  slice,
} from "../../index.js";
import { command, type ShimFlags, withShimFlags } from "../options.js";
import { runCommand, withBridge } from "../run.js";
import { formatFound, formatManifest } from "../tables.js";

interface Flags extends ShimFlags {
  readonly json?: boolean;
  readonly plan: string;
  readonly out: string;
  readonly flush: boolean;
  readonly sha256?: boolean;
  readonly layout?: LayoutName;
  readonly format?: Format;
}

/** `prunebridge slice` */
export function sliceCommand(): Command {
  const made = command("slice", "cut a checkpoint by a plan into a new folder (needs Python, but no torch)")
    .argument("<dir>", "checkpoint folder of the parent")
    .requiredOption("--plan <file>", "the plan that `prunebridge plan --out` wrote")
    .requiredOption("--out <dir>", "folder of the child; it must not exist or be empty")
    .option("--no-flush", "leave flushing to the operating system: faster, but a crash of the machine may cost the child")
    .addOption(new Option("--layout <name>", "lay the child out so, and not as its parent is").choices(LAYOUT_NAMES))
    .addOption(new Option("--format <name>", "the files' format (default: the parent's where the layout is Megatron's)").choices(FORMATS))
    .option("--sha256", "put a SHA-256 of each shard into the manifest");
  return withShimFlags(made).action((dir: string, flags: Flags) =>
    runCommand(flags, async (options) => {
      const parent = await readWeightedParent(dir);
      const plan = await readPlanFor(parent, flags.plan);
      const { flush, sha256 = false, layout, format } = flags;
      const laidOut = { ...(layout && { layout }), ...(format && { format }) };
      const there = await findChild(parent, plan, flags.out, { ...laidOut, sha256 });
      if (there) return { json: { out: flags.out, ...there, foundBytes: 0 }, text: `${flags.out} holds this child already` };
      await checkTarget(flags.out, parent.checkpoint.dir);
      let found = 0;
      const onFound = (bytes: number): void => {
        found = bytes;
      };
      const sliced = { ...options, flush, sha256, ...laidOut, onFound };
      const manifest = await withBridge(flags, (bridge) => slice(bridge, parent, plan, flags.out, sliced));
      return {
        json: { out: flags.out, ...manifest, foundBytes: found },
        text: `${formatManifest(flags.out, manifest)}${formatFound(found)}`,
      };
    }),
  );
}
