// SmolLM2-135M-Instruct as a checkpoint, and its calibration data: made once, used by the demo and the benches.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setUpPython } from "./setup.mjs";
import { ROOT, run } from "./tools.mjs";

/** Makes the inputs where they are missing; gives the interpreter and the folder. */
export function makeDemoInputs() {
  const python = setUpPython("demo");
  const folder = join(ROOT, ".demo");
  // Written last.
  if (!existsSync(join(folder, "scores-random.safetensors"))) {
    process.stderr.write("making the checkpoint and its calibration data ...\n");
    run(python, [join(ROOT, "scripts", "demo", "prepare.py"), folder], { env: { ...process.env, HF_HUB_OFFLINE: "1", TQDM_DISABLE: "1" } });
  }
  return { python, folder };
}
