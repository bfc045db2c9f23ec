import { execa } from "execa";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readPickle } from "../../../../src/checkpoint/megatron/pickle.js";
import { PickledName, PickledObject } from "../../../../src/checkpoint/megatron/pickled.js";
import { PruneError } from "../../../../src/errors.js";
import { findPython } from "../../../../src/shim/python.js";

const KNOWN = new Set(["a.Thing", "collections.OrderedDict"]);
const bytes = (text: string): Uint8Array => Buffer.from(text, "latin1");
const read = (text: string): unknown => readPickle(bytes(text), KNOWN, "the file");

/** What Python's own pickle makes of expressions, one after the other. */
async function pickled(...expressions: string[]): Promise<Uint8Array[]> {
  const code = `import argparse, os, pickle
class Runs:
    def __init__(self, *call): self.call = call
    def __reduce__(self): return self.call[0], self.call[1:]
for value in (${expressions.join(", ")},):
    print(value.hex() if isinstance(value, bytes) else pickle.dumps(value, 4).hex())`;
  const { stdout } = await execa(findPython(), ["-c", code]);
  return stdout.split("\n").map((line) => Buffer.from(line, "hex"));
}

it("reads what Python writes of plain values", async () => {
  const [values, keyed, wide] = await pickled(
    "[0, 255, 256, 65536, -1, 2**31, -2**40, 1.5, None, True, False, 'é', b'raw', (), (1,), (1, 2, 3, 4), [[]], {1}]",
    "{'a': {'b': [1, 2]}, 'again': ['x' * 300] * 2}",
    "10**30",
  );
  const raw = Buffer.from("raw");
  expect(readPickle(values ?? raw, KNOWN, "")).toEqual([
    ...[0, 255, 256, 65536, -1, 2 ** 31, -(2 ** 40), 1.5, null, true, false, "é", raw, [], [1], [1, 2, 3, 4], [[]], [1]],
  ]);
  const long = "x".repeat(300);
  expect(readPickle(keyed ?? raw, KNOWN, "")).toEqual(
    new Map<string, unknown>([
      ["a", new Map([["b", [1, 2]]])],
      ["again", [long, long]],
    ]),
  );
  expect(readPickle(wide ?? raw, KNOWN, "")).toBe(10n ** 30n);
});

it("records calls and states, and runs neither", () => {
  const thing = read("\x80\x02ca\nThing\n(K\x01K\x02tR}X\x01\0\0\0nK\x03sb.");
  expect(thing).toBeInstanceOf(PickledObject);
  expect(thing).toMatchObject({ name: "a.Thing", args: [1, 2], state: new Map([["n", 3]]) });
  expect(read("\x80\x02ca\nThing\n.")).toEqual(new PickledName("a.Thing"));
});

describe("a hostile pickle", () => {
  it.each([
    ["os.system", "Runs(os.system, 'true')", /holds posix\.system, which is no class/],
    ["eval", "Runs(eval, '1')", /holds builtins\.eval, which is no class/],
    ["getattr", "Runs(getattr, dict, 'x')", /holds builtins\.getattr, which is no class/],
    ["__import__", "Runs(__import__, 'os')", /holds builtins\.__import__, which is no class/],
    ["a class that is not known", "argparse.Namespace(a=1)", /holds argparse\.Namespace, which is no class/],
    ["an old protocol", "pickle.dumps([1], 0)", /has the opcode "l"/],
  ])("%s is refused by its name", async (_name, expression, message) => {
    const [data = new Uint8Array()] = await pickled(expression);
    expect(() => readPickle(data, KNOWN, "the file")).toThrow(message);
  });

  it.each([
    ["cnumpy.core.multiarray\nscalar\n.", /holds numpy\.core\.multiarray\.scalar, which is no class/],
    ["(ios\nsystem\n.", /the opcode "i"/],
    ["ca\nThing\n}b.", /sets the state of what is no object/],
    ["K\x01)R.", /calls what is no class/],
    ["K\x01a.", /never gave/],
    ["]K\x01K\x02u.", /ends a group that it never began/],
    ["](K\x01u.", /sets items of what is no dictionary/],
    ["h\x05.", /recalls the value 5, which it never stored/],
    ["NN.", /leaves values behind its end/],
    ["(.", /never gave/],
  ])("%j is refused", (program, message) => {
    expect(() => read(`\x80\x02${program}`)).toThrow(message);
  });

  it("costs no stack by its depth", () => {
    const depth = 1_000_000;
    expect(read(`\x80\x02${"]".repeat(depth)}${"a".repeat(depth - 1)}.`)).toHaveLength(1);
  });

  it("costs no memory by what it refers to over and over", () => {
    // Each list holds the one before it twice: written out, 2^200 elements.
    const lists = Array.from(
      { length: 200 },
      (_, i) => `]q${String.fromCharCode(i + 1)}(h${String.fromCharCode(i)}h${String.fromCharCode(i)}e`,
    );
    expect(read(`\x80\x02(]q\0${lists.join("")}t.`)).toHaveLength(201);
  });

  it("ends in a value or a PruneError, whatever the bytes are", () => {
    const opcodes = [..."NK]}()aetus.bRQqhjrcX\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8f\x90\x93\x94\x95\0\x01\x02\n"];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...opcodes), { maxLength: 60 }), (program) => {
        try {
          read(program.join(""));
        } catch (error) {
          if (!(error instanceof PruneError)) throw error;
        }
      }),
      { numRuns: 3000 },
    );
  });
});
