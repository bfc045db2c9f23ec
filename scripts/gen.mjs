// npm run gen [-- --check]: the stubs of both languages from proto/; --check compares instead of writing.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setUpGenerator, setUpNode } from "./lib/setup.mjs";
import { main, ROOT, run } from "./lib/tools.mjs";

const OUTPUTS = { typescript: "src/gen", python: "python_shim/prunebridge_shim/gen" };
const check = process.argv.includes("--check");

await main(() => {
  setUpNode();
  const python = setUpGenerator();
  const folder = check ? mkdtempSync(join(tmpdir(), "prunebridge-gen-")) : ROOT;
  try {
    run("npx", ["--no-install", "buf", "generate", "--output", folder]);
    if (check) cpSync(join(ROOT, OUTPUTS.python, "__init__.py"), join(folder, OUTPUTS.python, "__init__.py"), { recursive: true });
    run(python, [join(ROOT, "python_shim", "gen.py"), join(folder, OUTPUTS.python)]);
    if (check) for (const output of Object.values(OUTPUTS)) compare(output, folder);
  } finally {
    if (check) rmSync(folder, { recursive: true, force: true });
  }
});

function compare(output, folder) {
  const { status, stdout } = spawnSync("diff", ["-r", "-x", "__pycache__", join(ROOT, output), join(folder, output)], { encoding: "utf8" });
  if (status !== 0)
    throw new Error(`${output} differs from what proto/ generates; run npm run gen and commit it\n${stdout.slice(0, 2000)}`);
}
