// npm test [-- <arguments>]: sets up what it needs, then runs the tests of both languages side by side, or those that arguments choose:
// paths that begin with tests/ are Python's, all else is vitest's.
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
  // Much of either is waiting for deadlines and processes. The first shows how far it is, the other is shown once that has ended.
  const running = suites.map((suite, i) => start(suite, env, i === 0));
  for (const [i, { name }] of suites.entries()) {
    process.stdout.write(`--- ${name}\n`);
    const { status, output, shown } = await running[i];
    if (!shown) process.stdout.write(output);
    const { passed, failed } = countTests(output);
    totals.passed += passed;
    totals.failed += failed + (status !== 0 && failed === 0 ? 1 : 0);
  }
  process.stdout.write(`${totals.passed} passed, ${totals.failed} failed\n`);
  process.exitCode = totals.failed === 0 ? 0 : 1;
});

/** Runs a command and gives all that it printed at its end; shows that as it comes where asked. */
function start({ command, args, cwd }, env, shown) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio: ["inherit", "pipe", "pipe"] });
    let output = "";
    for (const [from, to] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      from.setEncoding("utf8").on("data", (text) => {
        output += text;
        if (shown) to.write(text);
      });
    }
    child.on("error", ({ message }) => resolve({ status: null, output: `${message}\n`, shown: false }));
    child.on("close", (status) => resolve({ status, output, shown }));
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
