import type { Command } from "commander";
import { inspect } from "../../index.js";
import { command } from "../options.js";
import { runCommand } from "../run.js";
import { formatInspection } from "../tables.js";

/** `prunebridge inspect` */
export function inspectCommand(): Command {
  return command("inspect", "say what a checkpoint is: family, sizes, parameters (no Python, no weights)")
    .argument("<path>", "checkpoint folder, or a bare config.json")
    .action((path: string, flags: { json?: boolean }) =>
      runCommand(flags, async () => {
        const found = await inspect(path);
        return { json: found, text: formatInspection(found) };
      }),
    );
}
