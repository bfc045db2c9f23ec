import { PruneError } from "../../errors.js";
import { PickleBytes } from "./pickleBytes.js";
import { MARK, type Pickled, PickledName, PickledObject } from "./pickled.js";
import { STEPS } from "./pickleSteps.js";

/**
 * Reads a pickle without running anything: classes are names, calls are records. Only what data of the given classes needs is understood.
 *
 * @param known - the full names of the classes that may occur
 * @param where - what to call the pickle in errors
 * @throws PruneError BAD_TORCH_DIST that names the class, the opcode or the byte
 */
export function readPickle(bytes: Uint8Array, known: ReadonlySet<string>, where: string): Pickled {
  return new PickleMachine(bytes, known, where).run();
}

type Slot = Pickled | typeof MARK;

/** Python's pickle machine, without what data has no need of. */
export class PickleMachine {
  readonly #input: PickleBytes;
  readonly #known: ReadonlySet<string>;
  readonly #where: string;
  readonly #stack: Slot[] = [];
  readonly #memo = new Map<number, Pickled>();

  constructor(bytes: Uint8Array, known: ReadonlySet<string>, where: string) {
    this.#input = new PickleBytes(bytes, where);
    this.#known = known;
    this.#where = where;
  }

  run(): Pickled {
    for (;;) {
      const opcode = this.#input.char();
      if (opcode === ".") break;
      const step = STEPS[opcode] ?? this.#fail(`has the opcode ${JSON.stringify(opcode)}, which no data of a checkpoint needs`);
      step(this, this.#input);
    }
    const result = this.pop();
    if (this.#stack.length > 0) this.#fail("leaves values behind its end");
    return result;
  }

  push(value: Slot): void {
    this.#stack.push(value);
  }

  pop(): Pickled {
    const value = this.#stack.pop();
    return value === undefined || value === MARK ? this.#fail("takes a value that it never gave") : value;
  }

  top(): Pickled {
    const value = this.pop();
    this.push(value);
    return value;
  }

  /** The values behind the last mark, which goes with them. */
  popToMark(): Pickled[] {
    const at = this.#stack.lastIndexOf(MARK);
    if (at < 0) this.#fail("ends a group that it never began");
    const values = this.#stack.splice(at + 1) as Pickled[]; // behind the last mark
    this.#stack.pop();
    return values;
  }

  popMany(count: number): Pickled[] {
    return Array.from({ length: count }, () => this.pop()).reverse();
  }

  memoize(index = this.#memo.size): void {
    this.#memo.set(index, this.top());
  }

  recall(index: number): void {
    const value = this.#memo.get(index);
    this.push(value === undefined ? this.#fail(`recalls the value ${index}, which it never stored`) : value);
  }

  named(module: Pickled, name: Pickled): void {
    if (typeof module !== "string" || typeof name !== "string") this.#fail("names a class by something other than text");
    const full = `${module}.${name}`;
    if (!this.#known.has(full)) this.#fail(`holds ${full}, which is no class that such a file is known to hold; nothing of it was run`);
    this.push(new PickledName(full));
  }

  made(named: Pickled, args: Pickled): void {
    if (!(named instanceof PickledName) || !Array.isArray(args)) this.#fail("calls what is no class");
    this.push(new PickledObject(named.name, args));
  }

  append(values: readonly Pickled[]): void {
    const list = this.top();
    if (!Array.isArray(list)) this.#fail("appends to what is no list");
    for (const value of values) list.push(value);
  }

  setItems(values: readonly Pickled[]): void {
    const target = this.top();
    const entries = target instanceof PickledObject ? target.entries : target;
    if (!(entries instanceof Map) || values.length % 2 !== 0) this.#fail("sets items of what is no dictionary");
    for (let i = 0; i < values.length; i += 2) entries.set(values[i] ?? null, values[i + 1] ?? null);
  }

  build(): void {
    const state = this.pop();
    const target = this.top();
    if (!(target instanceof PickledObject)) this.#fail("sets the state of what is no object");
    target.state = state;
  }

  #fail(what: string): never {
    throw new PruneError("BAD_TORCH_DIST", `${this.#where} ${what}`, {
      hint: "take the checkpoint from whom you trust, or save it again; if it comes from a newer Megatron, report the class",
    });
  }
}
