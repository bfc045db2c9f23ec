// npm run demo: sets up what it needs, makes a real checkpoint, prunes it.
import { join } from "node:path";
import { makeDemoInputs } from "./lib/demoInputs.mjs";
import { setUpNode } from "./lib/setup.mjs";
import { main, run } from "./lib/tools.mjs";

await main(() => {
  setUpNode();
  const { python, folder } = makeDemoInputs();
  run(process.execPath, ["--import", "tsx", join("scripts", "demo", "main.ts"), folder], {
    env: { ...process.env, PRUNEBRIDGE_PYTHON: python },
  });
});
