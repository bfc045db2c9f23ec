// npm run example -- <name>: runs a script of the folder examples/, with what it needs.
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setUpNode, setUpPython } from "./lib/setup.mjs";
import { main, ROOT, run } from "./lib/tools.mjs";

const FOLDER = join(ROOT, "examples");

await main(() => {
  const [name, ...args] = process.argv.slice(2);
  const scriptOf = (example) => join(FOLDER, example, "main.ts");
  if (!name || !existsSync(scriptOf(name))) {
    const names = readdirSync(FOLDER).filter((example) => existsSync(scriptOf(example)));
    throw new Error(`npm run example -- <name>, one of: ${names.join(", ")}`);
  }
  setUpNode();
  const python = setUpPython("example");
  run(process.execPath, ["--import", "tsx", scriptOf(name), ...args], { env: { ...process.env, PRUNEBRIDGE_PYTHON: python } });
});
