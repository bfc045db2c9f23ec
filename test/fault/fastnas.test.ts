import { readdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { expect, it } from "vitest";
import { temporaryFolder } from "../fixtures/checkpoints.js";

const SCRIPT = join(dirname(fileURLToPath(import.meta.url)), "..", "fixtures", "pruneNetwork.ts");

/** Runs the caller; gives what it says at its end, undefined where it killed itself, and how many networks it scored. */
async function run(checkpoint: string, dieAt = 0): Promise<{ said: string | undefined; scored: number }> {
  const log = `${checkpoint}.log`;
  await rm(log, { force: true });
  const { signal, stdout } = await execa(process.execPath, ["--import", "tsx", SCRIPT, checkpoint, log, `${dieAt}`], { reject: false });
  const scored = (await readFile(log, "utf8").catch(() => "")).split("\n").length - 1;
  return { said: signal === "SIGKILL" ? undefined : stdout, scored: Math.max(0, scored) };
}

it("a search whose caller was killed goes on with the first hyperparameter that is not stored, and ends as an undisturbed one", async () => {
  const dir = await temporaryFolder();
  const whole = await run(join(dir, "undisturbed"));
  expect(whole.said).toMatch(/"main.out_channels":8/);

  // The whole network and the two sizes of the first hyperparameter come before the fourth; what was not stored is scored again.
  const checkpoint = join(dir, "killed");
  expect(await run(checkpoint, 2)).toEqual({ said: undefined, scored: 2 });
  expect(await run(checkpoint, 4)).toEqual({ said: undefined, scored: 4 });
  expect(await run(checkpoint)).toEqual({ said: whole.said, scored: whole.scored - 3 });
  expect((await readdir(checkpoint)).sort()).toEqual(["sensitivity.json"]);
  expect(await run(checkpoint)).toEqual({ said: whole.said, scored: 0 });
});
