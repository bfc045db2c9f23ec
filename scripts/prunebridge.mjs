// npm run -s prunebridge -- <args>: the command line from a clone, in the folder that npm was called from.
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { setUpNode } from "./lib/setup.mjs";
import { main, ROOT } from "./lib/tools.mjs";

await main(async () => {
  setUpNode();
  // In this process: whoever kills it kills the command line, and its shim with it.
  const { register } = await import("tsx/esm/api");
  register();
  process.chdir(process.env.INIT_CWD ?? process.cwd());
  await import(pathToFileURL(join(ROOT, "src", "cli", "main.ts")).href);
});
