import type { Command } from "commander";
import { formatCandidates, formatSpace, readParent, readScoreFile, search } from "../../index.js";
import { command, positiveInteger } from "../options.js";
import { runCommand } from "../run.js";
import { type BoundFlags, boundsOf, divisorsOf, type SpaceFlags, searchOptionsOf, withBoundFlags, withSpaceFlags } from "../searchFlags.js";

interface Flags extends BoundFlags, SpaceFlags {
  readonly json?: boolean;
  readonly seqLength?: number;
  readonly batchSize?: number;
  readonly scores?: string;
}

/** `prunebridge search` */
export function searchCommand(): Command {
  const made = command("search", "list the largest subnets within bounds on parameters, memory or flops (no Python, no weights)")
    .argument("<path>", "checkpoint folder, or a bare config.json")
    .option("--scores <file>", "a score file: says which layers stay, where they are of several kinds")
    .option("--seq-length <tokens>", "tokens of a sequence, for memory and flops (default: 4096)", positiveInteger)
    .option("--batch-size <n>", "sequences of a batch, for memory and flops (default: 1)", positiveInteger);
  return withSpaceFlags(withBoundFlags(made)).action((path: string, flags: Flags) =>
    runCommand(flags, async () => {
      const { seqLength, batchSize } = flags;
      const found = search(await readParent(path), boundsOf(flags), {
        ...searchOptionsOf(flags),
        ...divisorsOf(flags),
        ...(seqLength !== undefined && { seqLength }),
        ...(batchSize !== undefined && { batchSize }),
        ...(flags.scores !== undefined && { scores: await readScoreFile(flags.scores) }),
      });
      return { json: found, text: `${formatSpace(found)}\n\n${formatCandidates(found, found.candidates)}` };
    }),
  );
}
