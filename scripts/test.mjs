// npm test [-- <vitest arguments>]: sets up what it needs, then runs the tests of both languages.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { setUpNode, setUpPython } from "./lib/setup.mjs";
import { main, ROOT } from "./lib/tools.mjs";

await main(() => {
  setUpNode();
  const python = setUpPython("dev");
  const args = process.argv.slice(2);
  const env = { ...process.env, PRUNEBRIDGE_PYTHON: python, HF_HUB_OFFLINE: "1" };
  const suites = [["TypeScript", join(ROOT, "node_modules", ".bin", "vitest"), ["run", ...args], ROOT]];
  // Arguments choose among the TypeScript tests.
  if (args.length === 0) suites.push(["Python", python, ["-m", "pytest", "-q", "-p", "no:cacheprovider"], join(ROOT, "python_shim")]);

  let passed = 0;
  let failed = 0;
  for (const [name, command, commandArgs, cwd] of suites) {
    process.stdout.write(`--- ${name}\n`);
    const { status, stdout } = spawnSync(command, commandArgs, {
      cwd,
      env,
      stdio: ["inherit", "pipe", "inherit"],
      encoding: "utf8",
      maxBuffer: 1 << 28,
    });
    process.stdout.write(stdout ?? "");
    const counts = countTests(stdout ?? "");
    passed += counts.passed;
    failed += counts.failed + (status !== 0 && counts.failed === 0 ? 1 : 0);
  }
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  process.exitCode = failed === 0 ? 0 : 1;
});

/** The last counts that vitest ("Tests  3 passed | 1 failed") or pytest ("3 passed, 1 failed in 2s") printed. */
function countTests(output) {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control characters
  const lines = output.replace(/\u001b\[[\d;]*m/g, "").split("\n");
  const line = lines.findLast((text) => /^\s*Tests\s/.test(text) || /\d+ (passed|failed).* in \d/.test(text)) ?? "";
  const count = (word) => Number(new RegExp(`(\\d+) ${word}`).exec(line)?.[1] ?? 0);
  return { passed: count("passed"), failed: count("failed") };
}
