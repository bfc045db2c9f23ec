// What the README says of jobs, done as it says: its own commands, its own snippets, and the job that it names.
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { encodeSafetensors } from "../../src/checkpoint/writeSafetensors.js";
import { inspect, verify } from "../../src/index.js";
import { findPython } from "../../src/shim/python.js";
import { bytesOf } from "../../src/tensor.js";
import { ON_CPU } from "../fixtures/megatronJobs.js";
import { blocksOf } from "../fixtures/readme.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TSX = join(ROOT, "node_modules", "tsx", "dist", "loader.mjs");
const LISTEN = "PYTHONPATH=python_shim python3 -m prunebridge_shim listen";
const READY_MS = 60_000;

let home: string;
let serving: readonly string[];
let sections: Readonly<Record<"sh" | "python" | "ts", readonly string[]>>;

/** The README's `/shared` is a folder of this test's. */
function atHome(code: string): string {
  return code.replaceAll('"/shared', `"${join(home, "shared")}`);
}

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const serve = blocksOf(readme, "Serve and attach", "sh").filter((code) => code.includes(LISTEN));
  serving = serve.map((code) => code.slice(0, code.indexOf(LISTEN)));
  const attaching = (language: string): string[] => blocksOf(readme, "Attach to a Megatron or NeMo job", language);
  sections = { sh: attaching("sh"), python: attaching("python"), ts: attaching("ts") };

  await mkdir(join(home, "shared"));
  await mkdir(join(home, "python_shim"));
  await symlink(join(ROOT, "python_shim", "prunebridge_shim"), join(home, "python_shim", "prunebridge_shim"));
  await cp(join(ROOT, "examples"), join(home, "examples"), { recursive: true });
  const script = join(home, "examples", "megatron", "train.py");
  await writeFile(script, atHome(await readFile(script, "utf8")));
  await writeFile(join(home, "package.json"), '{ "type": "module" }');
  const ids = BigInt64Array.from({ length: 8 * 32 }, (_, i) => BigInt((i * 7) % 128));
  const calibration = encodeSafetensors([{ name: "input_ids", dtype: "I64", shape: [8, 32], data: bytesOf(ids) }], {});
  await writeFile(join(home, "calibration.safetensors"), calibration);
});
afterAll(() => rm(home, { recursive: true, force: true }));

describe("the README's section on jobs", () => {
  it("shows what the script that it names has", async () => {
    const script = await readFile(join(ROOT, "examples", "megatron", "train.py"), "utf8");
    expect(sections.python.length).toBeGreaterThan(2);
    for (const code of sections.python) {
      const indented = [0, 4, 8].map((depth) => code.replace(/^(?=.)/gm, " ".repeat(depth)));
      expect(
        indented.some((text) => script.includes(text)),
        code,
      ).toBe(true);
    }
  });

  it("prunes a job that trains, as it is written", { timeout: 180_000 }, async () => {
    const sh = (code: string): ReturnType<typeof execa> => execa("bash", ["-ec", code], { cwd: home });
    for (const code of serving) await sh(code);

    // The ranks of this machine have no GPU.
    await symlink(join(ON_CPU.PYTHONPATH, "sitecustomize.py"), join(home, "python_shim", "sitecustomize.py"));
    const path = [dirname(findPython()), process.env["PATH"]].join(delimiter);
    const env = { PATH: path, OMP_NUM_THREADS: "1", PYTHONWARNINGS: "ignore" };
    const job = execa("bash", ["-ec", sections.sh[0] ?? ""], { cwd: home, env, all: true, reject: false, detached: true });
    try {
      await trains(job.all);
      const [snippet = ""] = sections.ts;
      const here = atHome(snippet).replace('from "prunebridge"', `from ${JSON.stringify(join(ROOT, "src", "index.ts"))}`);
      await writeFile(join(home, "prune.ts"), here);
      const { stdout } = await execa(process.execPath, ["--import", TSX, "prune.ts"], { cwd: home });
      expect(stdout).toMatch(/ffn_hidden_size: \d+/);
      await verify(join(home, "shared", "child"));
      expect((await inspect(join(home, "shared", "child"))).layout).toBe("megatron");

      await writeFile(join(home, "stop"), "");
      expect((await job).exitCode, (await job).all).toBe(0);
    } finally {
      if (job.pid !== undefined && job.exitCode === null) process.kill(-job.pid, "SIGTERM");
      await job;
    }
  });
});

/** Waits until a job says a loss. Its output is read to its end: a job that can no longer print would fail. */
async function trains(log: NodeJS.ReadableStream): Promise<void> {
  let text = "";
  const said = new Promise<void>((resolve, reject) => {
    log.on("data", (data) => {
      text += data;
      if (/step \d+: loss \d/.test(text)) resolve();
    });
    log.on("end", () => reject(new Error(`the job ended: ${text}`)));
  });
  const late = new AbortController();
  const limit = sleep(READY_MS, undefined, { signal: late.signal }).then(() => {
    throw new Error(`the job does not train after ${READY_MS / 1000} s: ${text}`);
  });
  await Promise.race([said, limit]).finally(() => late.abort());
}
