// npm run check: format, lint, import arrows, types, proto and generated code, in both languages.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { setUpNode, setUpPython } from "./lib/setup.mjs";
import { main, ROOT, run } from "./lib/tools.mjs";

await main(() => {
  setUpNode();
  const python = setUpPython("dev");
  const shim = { cwd: join(ROOT, "python_shim") };
  const npx = (...args) => run("npx", ["--no-install", ...args]);

  step("format, lint and import arrows", () => npx("biome", "ci", "--error-on-warnings", "--colors=off"));
  step("types", () => npx("tsc", "-p", "."));
  step("proto", () => npx("buf", "lint"));
  step("proto against the last release", () => {
    const tag = lastRelease();
    if (tag) npx("buf", "breaking", "--against", `.git#tag=${tag}`);
  });
  step("generated code", () => run(process.execPath, [join("scripts", "gen.mjs"), "--check"]));
  step("Python: format and lint", () => {
    run(python, ["-m", "ruff", "format", "--check", "."], shim);
    run(python, ["-m", "ruff", "check", "."], shim);
  });
  step("Python: types", () => run(python, ["-m", "mypy"], shim));
  step("the package builds", () => npx("tsc", "-p", "tsconfig.build.json", "--noEmit"));
});

function step(name, body) {
  process.stderr.write(`--- ${name}\n`);
  body();
}

function lastRelease() {
  const { stdout, status } = spawnSync("git", ["describe", "--tags", "--abbrev=0", "--match", "v*"], { cwd: ROOT, encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
}
