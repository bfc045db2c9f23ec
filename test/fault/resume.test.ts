import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readPlanFile, readScoreFile, type StateDict } from "../../src/index.js";
import { ShimProcess } from "../../src/shim/process.js";
import { mulberry32, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { MOMENTS, RESUMABLE, type ResumableRun, WRITES } from "../fixtures/resumable.js";
import { tokenEnvironment } from "../fixtures/sessions.js";

const SCRIPT = join(dirname(fileURLToPath(import.meta.url)), "..", "fixtures", "pruneResumably.ts");
const SOAK = process.env["PRUNEBRIDGE_SOAK"] === "1";
const SOAK_MS = 30 * 60_000;

let shim: ShimProcess;
let dir: string;
let parent: string;
let expected: Undisturbed;
beforeAll(async () => {
  shim = await ShimProcess.start();
  dir = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  parent = await writeCheckpoint(join(dir, "parent"));
  expected = await runUndisturbed(join(dir, "first"));
});
afterAll(async () => {
  await shim?.stop();
  await rm(dir, { recursive: true, force: true });
});

interface Known {
  readonly batches: number;
  readonly candidates: readonly string[];
}

/** What a checkpoint folder knows. Fails where a file under its own name is not whole. */
async function knownIn(folder: string): Promise<Known> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => !name.startsWith("."));
  const known = { batches: 0, candidates: [] as string[] };
  for (const name of names) {
    const path = join(folder, name);
    if (name === "plan.json") await readPlanFile(path);
    else if (name === "search.json") {
      const { scored } = JSON.parse(await readFile(path, "utf8")) as { scored: { exportConfig: Record<string, number> }[] };
      known.candidates = scored.map(({ exportConfig }) => `${exportConfig["hidden_size"]} ${exportConfig["ffn_hidden_size"]}`);
    } else known.batches = Number((await readScoreFile(path)).provenance["batches"]);
  }
  return known;
}

/** Runs the child once, kills it after a while where asked; gives what it says at its end, undefined where it was killed. */
async function runOnce(run: Omit<ResumableRun, "log">, killAfterMs?: number): Promise<StateDict | undefined> {
  const before = await knownIn(run.checkpoint);
  const log = `${run.checkpoint}.log`;
  await rm(log, { force: true });
  const child = execa(process.execPath, ["--import", "tsx", SCRIPT, JSON.stringify({ ...run, log })], {
    reject: false,
    stderr: "inherit",
    env: tokenEnvironment(shim),
  });
  if (killAfterMs !== undefined) {
    await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
    await sleep(killAfterMs);
    child.kill("SIGKILL");
  }
  const { signal, exitCode, stdout } = await child;
  const lines = (await readFile(log, "utf8").catch(() => "")).split("\n");
  const told = (what: string): string[] => lines.filter((line) => line.startsWith(what)).map((line) => line.slice(what.length));
  // Batches that are stored are not run again, and the others in turn.
  expect(told("ran ").map(Number)).toEqual(told("ran ").map((_, i) => before.batches + i));
  expect(told("judged ").filter((candidate) => before.candidates.includes(candidate))).toEqual([]);
  await knownIn(run.checkpoint);
  if (signal === "SIGKILL") return undefined;
  expect(exitCode).toBe(0);
  expect(told("ran ")).toHaveLength(RESUMABLE.batches - before.batches);
  return JSON.parse(stdout.split("\n").at(-1) ?? "") as StateDict;
}

/** Everything that a run leaves, but for how long it took. */
async function leftIn(checkpoint: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const name of (await readdir(checkpoint)).sort()) {
    files[name] = (await readFile(join(checkpoint, name), "latin1")).replace(/"seconds": [\d.e-]+/g, '"seconds": 0');
  }
  return files;
}

/** A run that was not killed. */
interface Undisturbed {
  readonly outcome: StateDict | undefined;
  readonly files: Record<string, string>;
}

async function runUndisturbed(checkpoint: string): Promise<Undisturbed> {
  const outcome = await runOnce({ address: shim.address, parent, checkpoint });
  return { outcome, files: await leftIn(checkpoint) };
}

type Death = NonNullable<ResumableRun["die"]> | { readonly afterMs: number };

/** Lets each run die as told until one ends by itself, and compares what is left with what an undisturbed run leaves. Gives how many died. */
async function expectSame(deaths: readonly Death[], over: Pick<ResumableRun, "address"> = { address: shim.address }): Promise<number> {
  const run = { ...over, parent, checkpoint: join(await temporaryFolder(), "checkpoint") };
  let died = 0;
  let outcome: StateDict | undefined;
  for (const death of deaths) {
    outcome = "write" in death ? await runOnce({ ...run, die: death }) : await runOnce(run, death.afterMs);
    if ("write" in death) expect(outcome, "it outlived its death").toBeUndefined();
    if (outcome) break;
    died += 1;
  }
  outcome ??= await runOnce(run);
  expectSameOutcome({ outcome, files: await leftIn(run.checkpoint) });
  return died;
}

function expectSameOutcome({ outcome, files }: Undisturbed): void {
  expect({ ...outcome, timings: undefined }).toEqual({ ...expected.outcome, timings: undefined });
  expect(files).toEqual(expected.files);
}

// The fourth write is a rename alone.
const MOMENTS_OF_WRITES: Death[] = Array.from({ length: WRITES }, (_, i) => i + 1).flatMap((write) =>
  MOMENTS.filter((moment) => write !== 4 || moment !== "half written").map((moment) => ({ write, moment })),
);

describe("a pruning that is killed", () => {
  it("leaves the same three files whenever nothing disturbs it", async () => {
    expect(Object.keys(expected.files)).toEqual(["plan.json", "scores.safetensors", "search.json"]);
    expectSameOutcome(await runUndisturbed(join(dir, "second")));
  });

  it.each(SOAK ? MOMENTS_OF_WRITES : MOMENTS_OF_WRITES.filter((_, i) => i % 5 === 0))(
    "at %j goes on from there, to the same result",
    async (death) => void (await expectSame([death])),
  );

  it("again and again gets one write further each time, to the same result", async () => {
    const half = { write: 1, moment: "half written" } as const;
    const whole = { write: 1, moment: "renamed" } as const;
    // Six writes are made once; from then on each run writes the plan again, and last of all the history.
    const last = { write: 2, moment: "renamed" } as const;
    await expectSame([half, whole, whole, half, whole, { ...whole, moment: "written" }, whole, whole, half, whole, whole, last]);
  });

  it(
    "at any time goes on from there, to the same result",
    async () => {
      const random = mulberry32(7);
      const again = await runOnce({ address: shim.address, parent, checkpoint: join(dir, "third") });
      const ms = 1000 * (again?.timings.total ?? Number.NaN);
      const rounds = SOAK ? 40 : 1;
      let died = 0;
      for (let round = 0; round < rounds; round++)
        died += await expectSame(Array.from({ length: 4 }, () => ({ afterMs: (random() * ms) / 2 })));
      expect(died).toBeGreaterThan(0);
    },
    SOAK_MS,
  );

  it("with its shim goes on with another one, to the same result", async () => {
    await expectSame([{ write: 2, moment: "written" }], {});
  });
});
