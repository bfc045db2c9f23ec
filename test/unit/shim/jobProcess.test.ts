import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import { JobProcess } from "../../../src/shim/jobProcess.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";
import { isAlive } from "../../fixtures/failures.js";

/** Says that it is ready, once a folder that cannot be unlinked lies where its token did, and goes on. */
const STUBBORN = `#!/bin/sh
for token; do :; done
rm "$token"
mkdir "$token"
echo "$$ $token" > "$STARTED"
echo '{"event": "ready"}'
exec sleep 60
`;

it("ends a job whose token cannot be removed", async () => {
  const dir = await temporaryFolder();
  const [python, started] = [join(dir, "python"), join(dir, "started")];
  await writeFile(python, STUBBORN, { mode: 0o755 });
  await expect(JobProcess.start({ ranks: 1, args: [], python, env: { STARTED: started } })).rejects.toThrow(/token/);
  const [pid, token] = (await readFile(started, "utf8")).trim().split(" ");
  expect(isAlive(Number(pid))).toBe(false);
  expect(existsSync(dirname(token ?? ""))).toBe(false);
});
