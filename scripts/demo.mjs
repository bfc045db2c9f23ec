// npm run demo: sets up what it needs, makes a real checkpoint, prunes it.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setUpNode, setUpPython } from "./lib/setup.mjs";
import { main, ROOT, run } from "./lib/tools.mjs";

await main(() => {
  setUpNode();
  const python = setUpPython("demo");
  const folder = join(ROOT, ".demo");
  if (!existsSync(join(folder, "scores-random.safetensors"))) {
    process.stderr.write("making the checkpoint and its calibration data ...\n");
    run(python, [join(ROOT, "scripts", "demo", "prepare.py"), folder], { env: { ...process.env, HF_HUB_OFFLINE: "1" } });
  }
  run(process.execPath, ["--import", "tsx", join("scripts", "demo", "main.ts"), folder], {
    env: { ...process.env, PRUNEBRIDGE_PYTHON: python },
  });
});
