// npm run bench -- <name>: measures, and prints figures of one run side by side.
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { makeDemoInputs } from "./lib/demoInputs.mjs";
import { setUpNode } from "./lib/setup.mjs";
import { main, ROOT, run } from "./lib/tools.mjs";

const FOLDER = join(ROOT, "scripts", "bench");

await main(() => {
  const [name, ...args] = process.argv.slice(2);
  const file = join(FOLDER, `${name}.ts`);
  if (!name || !existsSync(file)) {
    const names = readdirSync(FOLDER).flatMap((entry) => (entry.endsWith(".ts") ? [entry.slice(0, -3)] : []));
    throw new Error(`npm run bench -- <name>, one of: ${names.join(", ")}`);
  }
  setUpNode();
  const { python, folder } = makeDemoInputs();
  run(process.execPath, ["--import", "tsx", file, folder, ...args], { env: { ...process.env, PRUNEBRIDGE_PYTHON: python } });
});
