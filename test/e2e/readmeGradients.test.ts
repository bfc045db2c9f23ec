// What the README says of pruning by gradients, done as it says.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Bridge } from "../../src/index.js";
import { findPython } from "../../src/shim/python.js";
import { asFloat32 } from "../../src/tensor.js";
import { writeCheckpoint } from "../fixtures/checkpoints.js";
import { IMPLIED_HEADS } from "../fixtures/families.js";
import { blocksOf } from "../fixtures/readme.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TSX = join(ROOT, "node_modules", "tsx", "dist", "loader.mjs");
/** The README's own is any iterable. */
const BATCHES = `const batches = Array.from({ length: 3 }, (_, batch) => {
  const input_ids = [0, 1].map((row) => Array.from({ length: 8 }, (_, at) => (7 * at + 5 * row + 3 * batch) % 40));
  return { input_ids, attention_mask: input_ids.map((ids) => ids.map(() => 1)), labels: input_ids };
});
`;
const PROBE = [[1, 2, 3, 4, 5, 6]];

let home: string;
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
});
afterAll(() => rm(home, { recursive: true, force: true }));

const atHome = (code: string): string => code.replaceAll('"/shared', `"${home}`);

it("prunes, and opens the child again in both ways that it names", async () => {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const [script = ""] = blocksOf(readme, "Prune by gradients", "ts");
  const [lines = ""] = blocksOf(readme, "Prune by gradients", "python");
  await writeCheckpoint(join(home, "bert"), { ...IMPLIED_HEADS.bertMaskedLm, intermediate_size: 128, max_position_embeddings: 128 });

  await writeFile(join(home, "package.json"), '{ "type": "module" }');
  const here = atHome(script).replace('from "prunebridge"', `from ${JSON.stringify(join(ROOT, "src", "index.ts"))}`);
  await writeFile(join(home, "prune.ts"), BATCHES + here);
  const { stdout } = await execa(process.execPath, ["--import", TSX, "prune.ts"], { cwd: home });
  expect(stdout).toMatch(/bert\.encoder\.layer\.0\.intermediate\.dense\.out_features/);

  const ask = `print(json.dumps(model(torch.tensor(${JSON.stringify(PROBE)})).logits.flatten().tolist()))\n`;
  await writeFile(join(home, "open.py"), atHome(lines) + ask);
  const rebuilt = JSON.parse((await execa(findPython(), ["open.py"], { cwd: home })).stdout) as number[];
  await using bridge = await Bridge.spawn();
  await using child = await bridge.load({ checkpoint: join(home, "bert-70") });
  const loaded = asFloat32(await child.output({ input_ids: PROBE }));
  expect(rebuilt).toHaveLength(loaded.length);
  for (const [i, value] of rebuilt.entries()) expect(value).toBeCloseTo(loaded[i] ?? Number.NaN, 5);
});
