// npm test [-- <arguments>]: sets up what it needs, then runs the tests of both languages, or those that arguments choose: paths that begin
// with tests/ are Python's, all else is vitest's.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { setUpNode, setUpPython } from "./lib/setup.mjs";
import { main, ROOT } from "./lib/tools.mjs";

await main(async () => {
  setUpNode();
  const python = setUpPython("dev");
  const args = process.argv.slice(2);
  const env = { ...process.env, PRUNEBRIDGE_PYTHON: python, HF_HUB_OFFLINE: "1" };
  const ofPython = args.filter((arg) => arg.startsWith("tests/"));
  const ofVitest = args.filter((arg) => !ofPython.includes(arg));
  const vitest = { name: "TypeScript", command: join(ROOT, "node_modules", ".bin", "vitest"), args: ["run", ...ofVitest], cwd: ROOT };
  const pytest = { name: "Python", command: python, args: ["-m", "pytest", ...ofPython], cwd: join(ROOT, "python_shim") };
  const chosen = [...(ofVitest.length > 0 ? [vitest] : []), ...(ofPython.length > 0 ? [pytest] : [])];
  const suites = args.length === 0 ? [vitest, pytest] : chosen;

  const totals = { passed: 0, failed: 0 };
  for (const suite of suites) {
    process.stdout.write(`--- ${suite.name}\n`);
    const { status, output } = await runAndShow(suite, env);
    const { passed, failed } = countTests(output);
    totals.passed += passed;
    totals.failed += failed + (status !== 0 && failed === 0 ? 1 : 0);
  }
  process.stdout.write(`${totals.passed} passed, ${totals.failed} failed\n`);
  process.exitCode = totals.failed === 0 ? 0 : 1;
});

/** Runs a command, showing its output as it comes and giving it at the end. */
function runAndShow({ command, args, cwd }, env) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd, env, stdio: ["inherit", "pipe", "inherit"] });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text) => {
      process.stdout.write(text);
      output += text;
    });
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, output }));
  });
}

/** The last counts that vitest ("Tests  3 passed | 1 failed") or pytest ("3 passed, 1 failed in 2s") printed. */
function countTests(output) {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control characters
  const lines = output.replace(/\u001b\[[\d;]*m/g, "").split("\n");
  const line = lines.findLast((text) => /^\s*Tests\s/.test(text) || /\d+ (passed|failed).* in \d/.test(text)) ?? "";
  const count = (word) => Number(new RegExp(`(\\d+) ${word}`).exec(line)?.[1] ?? 0);
  return { passed: count("passed"), failed: count("failed") };
}
