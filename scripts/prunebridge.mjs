// npm run -s prunebridge -- <args>: the command line from a clone, in the folder that npm was called from.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { setUpNode } from "./lib/setup.mjs";
import { main, ROOT } from "./lib/tools.mjs";

await main(() => {
  setUpNode();
  const tsx = join(ROOT, "node_modules", "tsx", "dist", "loader.mjs");
  const cli = join(ROOT, "src", "cli", "main.ts");
  const { status } = spawnSync(process.execPath, ["--import", tsx, cli, ...process.argv.slice(2)], {
    cwd: process.env.INIT_CWD ?? process.cwd(),
    stdio: "inherit",
  });
  process.exitCode = status ?? 1;
});
