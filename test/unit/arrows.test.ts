import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { expect, it } from "vitest";
import { temporaryFolder } from "../fixtures/checkpoints.js";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const BIOME = join(ROOT, "node_modules", ".bin", "biome");
const FORBIDDEN = [
  ["src/policy", "node:fs/promises"],
  ["src/policy", "../checkpoint/safetensors.js"],
  ["src/policy/families", "../../shim/session.js"],
  ["src/policy/modes", "../../tensor.js"],
  ["src/checkpoint", "../model/bridge.js"],
  ["src/checkpoint", "../gen/prunebridge/v1/tensor.js"],
  ["src/checkpoint/megatron", "../../model/bridge.js"],
  ["src/data", "../shim/session.js"],
  ["src/shim", "../checkpoint/folder.js"],
  ["src/cli", "../shim/session.js"],
  ["src/cli/commands", "../../checkpoint/staging.js"],
  ["src/model", "../pruning/run.js"],
  ["src/model", "../gen/prunebridge/v1/work.js"],
  ["src/pruning", "../shim/session.js"],
  ["src/pruning", "../prune.js"],
  ["src", "./gen/prunebridge/v1/tensor.js"],
  ["src", "./cli/run.js"],
] as const;

// A pattern that matches nothing forbids nothing, in silence: try each forbidden import.
it("the linter refuses every import against the arrows", async () => {
  const dir = await temporaryFolder();
  await copyFile(join(ROOT, "biome.json"), join(dir, "biome.json"));
  for (const [index, [folder, imported]] of FORBIDDEN.entries()) {
    await mkdir(join(dir, folder), { recursive: true });
    await writeFile(join(dir, folder, `planted${index}.ts`), `import * as planted from "${imported}";\n\nexport { planted };\n`);
  }
  const { stdout } = await execa(BIOME, ["lint", "--reporter=json", "--max-diagnostics=none"], { cwd: dir, reject: false });
  const found = (JSON.parse(stdout) as { diagnostics: { category: string; location: { path: string } }[] }).diagnostics;
  const refused = found.filter(({ category }) => category === "lint/style/noRestrictedImports").map(({ location }) => location.path);
  expect(refused.sort()).toEqual(FORBIDDEN.map(([folder], index) => `${folder}/planted${index}.ts`).sort());
});
