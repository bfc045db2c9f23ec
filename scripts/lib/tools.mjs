// What the scripts share. Plain JavaScript on Node alone: it runs before anything is installed.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

/** Runs a command in the repository; throws with its name where it fails. */
export function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { cwd: ROOT, stdio: "inherit", ...options });
  if (error) throw new Error(`cannot run ${command}: ${error.message}`);
  if (status !== 0) throw new Error(`${[command, ...args].join(" ")} failed with exit code ${status}`);
}

/** Does a step unless it was done with the same inputs; a stamp beside its product remembers. */
export function once(product, inputs, step) {
  const stamp = join(product, ".prunebridge-setup");
  const hash = createHash("sha256")
    .update(inputs.map((path) => (existsSync(path) ? readFileSync(path) : path)).join("\n"))
    .digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === hash) return;
  step();
  mkdirSync(product, { recursive: true });
  writeFileSync(stamp, hash);
}

/** Runs a script's body; a failure is one line, not a stack. */
export async function main(body) {
  try {
    await body();
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  }
}
