// The example of a vision network, run as it is but for fewer epochs, and what the README says of it, done as it says.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { asFloat32, Bridge, readTensors } from "../../src/index.js";
import { findPython } from "../../src/shim/python.js";
import { largestDifference } from "../fixtures/goldens.js";
import { blocksOf } from "../fixtures/readme.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TSX = join(ROOT, "node_modules", "tsx", "dist", "loader.mjs");
const DIGITS = join(ROOT, "examples", "digits");
const EPOCHS = 6;
const PRINT_OUTPUTS = `
import json, sys
from pathlib import Path
import digits, torch
network = digits.rebuild(Path(sys.argv[1]))
images, _ = digits.split()["test"]
with torch.no_grad():
    print(json.dumps(network(images).flatten().tolist()))
`;

let home: string;
let readme: string;
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  readme = await readFile(join(ROOT, "README.md"), "utf8");
  await cp(DIGITS, join(home, "examples", "digits"), { recursive: true });
  await writeFile(join(home, "package.json"), '{ "type": "module" }');
});
afterAll(() => rm(home, { recursive: true, force: true }));

const env = { PRUNEBRIDGE_PYTHON: findPython() };

describe("the digits example", () => {
  it("reaches each share of the flops, scores once for both, and is ahead of uniform widths of as many flops", {
    timeout: 300_000,
  }, async () => {
    const script = join(DIGITS, "main.ts");
    const { stdout, stderr } = await execa(process.execPath, ["--import", TSX, script, join(home, ".digits"), `${EPOCHS}`], {
      env,
      cwd: ROOT,
    });
    const scored = [...stderr.matchAll(/(\d+)% of the flops: scored (\d+) networks/g)].map(([, share, count]) => [
      Number(share),
      Number(count),
    ]);
    expect(scored).toEqual([
      [50, expect.any(Number)],
      [30, 0],
    ]);
    expect(scored[0]?.[1]).toBeGreaterThan(20);
    for (const share of [50, 30]) {
      const [fastnas, uniform] = ["fastnas", "uniform"].map((name) => rowOf(stdout, `${name} ${share}%`));
      expect(fastnas?.share).toBeLessThanOrEqual(share);
      expect(uniform?.flops).toBeGreaterThanOrEqual(fastnas?.flops ?? Number.NaN);
      expect(fastnas?.tuned).toBeGreaterThan(uniform?.tuned ?? Number.NaN);
    }
  });

  it("is what the README shows, and what that saves is rebuilt in plain PyTorch", async () => {
    const section = (language: string): string[] => blocksOf(readme, "Prune a vision network", language);
    const module = await readFile(join(DIGITS, "digits.py"), "utf8");
    const [imports = "", rebuild = ""] = section("python");
    for (const line of imports.split("\n")) expect(module).toContain(line);
    expect(rebuild).toContain("def rebuild");
    expect(module).toContain(rebuild);

    const [snippet = ""] = section("ts");
    await writeFile(join(home, "prune.ts"), snippet.replace('from "prunebridge"', `from ${JSON.stringify(join(ROOT, "src", "index.ts"))}`));
    const { stdout } = await execa(process.execPath, ["--import", TSX, "prune.ts"], { cwd: home, env });
    expect(stdout).toMatch(/'stage1\.0\.conv1\.out_channels': \d+/);

    const child = join(home, ".digits", "child");
    const { stdout: outputs } = await execa(findPython(), ["-c", PRINT_OUTPUTS, child], { env: { PYTHONPATH: DIGITS } });
    const { "test.images": images } = await readTensors(join(home, ".digits", "trained", "images.safetensors"));
    if (!images) throw new Error("there are no images");
    await using bridge = await Bridge.spawn({ allowPython: [DIGITS] });
    await using network = await bridge.load({ checkpoint: child });
    expect(largestDifference(Float32Array.from(JSON.parse(outputs)), asFloat32(await network.output(images)))).toBeLessThanOrEqual(1e-5);
  });
});

/** The figures of a line of the example's table. */
function rowOf(table: string, name: string): { readonly flops: number; readonly share: number; readonly tuned: number } {
  const line = table.split("\n").find((text) => text.startsWith(name)) ?? "";
  const [flops = Number.NaN, share = Number.NaN, , tuned = Number.NaN] = line
    .slice(name.length)
    .trim()
    .split(/\s+/)
    .slice(1)
    .map((cell) => Number(cell.replaceAll(/[,%]/g, "")));
  return { flops, share, tuned };
}
