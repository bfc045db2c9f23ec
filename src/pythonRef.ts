import { PruneError } from "./errors.js";

const PATH = String.raw`[\p{L}_][\p{L}\p{N}_]*(?:\.[\p{L}_][\p{L}\p{N}_]*)*`;
const NAME = new RegExp(`^${PATH}:${PATH}$`, "u");
const ALLOWED = new RegExp(`^${PATH}(?::${PATH})?$`, "u");
const FOLDER = /^(?:\.{0,2}\/.*|\.{1,2})$/s;

/** A Python function that the shim calls where the model is. Made by {@link python}. */
export interface PythonRef {
  readonly kind: "python";
  /** `package.module:function` */
  readonly name: string;
}

/**
 * Names a Python function to be called in the shim, which has to allow it: see `allowPython` of {@link Bridge.spawn}.
 *
 * @param name - `package.module:function`
 * @throws PruneError BAD_OPTION for a name of another form
 */
export function python(name: string): PythonRef {
  if (!NAME.test(name)) {
    throw new PruneError("BAD_OPTION", `${JSON.stringify(name)} names no Python function`, { hint: 'write "package.module:function"' });
  }
  return { kind: "python", name };
}

/** Whether a value was made by {@link python}. */
export function isPythonRef(value: unknown): value is PythonRef {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "python";
}

/** Throws BAD_OPTION for what is neither a module's nor a function's name, nor a folder's path. */
export function checkAllowName(name: string): void {
  if (ALLOWED.test(name) || FOLDER.test(name)) return;
  throw new PruneError("BAD_OPTION", `allowPython: ${JSON.stringify(name)} names neither a Python module nor a function`, {
    hint: 'write "package.module" or "package.module:function"; a folder begins with "/", "./" or "../"',
  });
}

/** Throws PYTHON_DENIED where a function is neither allowed itself nor by its module. What lies in a folder, the shim alone knows. */
export function checkAllowed({ name }: PythonRef, allowed: readonly string[]): void {
  const [module = ""] = name.split(":");
  if (allowed.includes(name) || allowed.includes(module) || allowed.some((one) => FOLDER.test(one))) return;
  throw new PruneError("PYTHON_DENIED", `the Python function ${name} is not allowed`, {
    hint: `start the shim with allowPython: [${JSON.stringify(name)}]`,
  });
}
