import type { Command } from "commander";
import { formatOutline, outline, PruneError, plan, type RankBy, readParent, readScoreFile, writePlanFile } from "../../index.js";
import { command, readExportConfig } from "../options.js";
import { runCommand } from "../run.js";

interface Flags {
  readonly json?: boolean;
  readonly exportConfig: string;
  readonly scores?: string;
  readonly skipSorting?: boolean;
  readonly out?: string;
}

/** `prunebridge plan` */
export function planCommand(): Command {
  return command("plan", "decide what a child keeps and count it (no Python, no weights)")
    .argument("<path>", "checkpoint folder, or a bare config.json")
    .requiredOption("--export-config <json>", "sizes to keep, as JSON or as the path of a JSON file")
    .option("--scores <file>", "rank by this score file; without it only sizes and parameters are printed")
    .option("--skip-sorting", "keep the first positions of each dimension: for parents that are sorted already")
    .option("--out <file>", "write the plan here, for `prunebridge slice`")
    .action((path: string, flags: Flags) => runCommand(flags, () => makePlan(path, flags)));
}

async function makePlan(path: string, flags: Flags): Promise<{ json: unknown; text: string }> {
  if (flags.scores !== undefined && flags.skipSorting) throw new PruneError("BAD_OPTION", "--scores and --skip-sorting exclude each other");
  const parent = await readParent(path);
  const exportConfig = await readExportConfig(flags.exportConfig);
  const outlined = outline(parent, exportConfig);
  const rankBy = await readRanking(flags);
  if (!rankBy) {
    if (flags.out !== undefined) {
      throw new PruneError("BAD_OPTION", "a plan that can be cut needs a ranking", {
        hint: "give --scores, made by `prunebridge score`, or --skip-sorting",
      });
    }
    return { json: outlined, text: formatOutline(outlined) };
  }
  const made = plan(parent, exportConfig, rankBy);
  if (flags.out !== undefined) await writePlanFile(flags.out, made);
  const { kept: _kept, ...summary } = made;
  return { json: { ...summary, ...(flags.out !== undefined && { out: flags.out }) }, text: formatOutline(made) };
}

async function readRanking({ scores, skipSorting }: Flags): Promise<RankBy | undefined> {
  if (skipSorting) return "position";
  return scores === undefined ? undefined : { scores: await readScoreFile(scores), path: scores };
}
