import { accessSync, constants } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

// src/shim in a clone, dist/shim when installed: both two levels under the package.
const PACKAGE_ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

/** The folder that holds the shim's Python package. */
export const SHIM_PATH = join(PACKAGE_ROOT, "python_shim");

/** The interpreter to run the shim with: the one asked for, PRUNEBRIDGE_PYTHON, the virtual environment of `npm run setup`, or python3. */
export function findPython(asked?: string): string {
  const prepared = join(PACKAGE_ROOT, ".venv", "bin", "python");
  return asked ?? process.env["PRUNEBRIDGE_PYTHON"] ?? (isExecutable(prepared) ? prepared : "python3");
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
