import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findPython } from "../../src/shim/python.js";
import { files, headerOf, startOfFile } from "./headers.js";
import { FACTOR, outcomeOf, TIMEOUT_MS } from "./outcome.js";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const BATCH = 100;

/** What the safetensors library takes and we refuse: each may be read otherwise by another reader, or is more than JSON's readers agree on. */
const STRICTER = [
  /occurs twice in one object/,
  /nested more than/,
  /describes .* by /s,
  /__metadata__ that is not a map/,
  /the dtype \{/,
  /takes NaN/,
  /the (shape|offsets) \[/,
];

interface Readings {
  /** Dtype, shape and offset in the file of each tensor; null where the file is refused. */
  readonly shim: Readonly<Record<string, readonly [string, readonly number[], number]>> | null;
  readonly library: Readonly<Record<string, readonly [string, readonly number[]]>> | null;
}

let read: (files: readonly Uint8Array[]) => Promise<Readings[]>;
let stop: () => Promise<unknown>;

beforeAll(() => {
  const env = { PYTHONPATH: join(ROOT, "python_shim") };
  const python = execa(findPython(), [join(ROOT, "test", "fuzz", "read_headers.py")], {
    env,
    stderr: "inherit",
    buffer: false,
    reject: false,
  });
  const lines = createInterface({ input: python.stdout })[Symbol.asyncIterator]();
  read = async (batch) => {
    for (const file of batch) {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(file.length);
      python.stdin.write(Buffer.concat([length, file]));
    }
    const readings: Readings[] = [];
    for (const _ of batch) readings.push(JSON.parse(String((await lines.next()).value)) as Readings);
    return readings;
  };
  stop = () => {
    python.stdin.end();
    return python;
  };
});
afterAll(() => stop?.());

describe("readers of headers", () => {
  it(
    "in TypeScript and in Python agree, and take nothing that the safetensors library refuses",
    async () => {
      let [taken, stricter] = [0, 0];
      await fc.assert(
        fc.asyncProperty(fc.array(files(2), { minLength: BATCH, maxLength: BATCH }), async (batch) => {
          for (const [i, { shim, library }] of (await read(batch)).entries()) {
            const { value, refused } = outcomeOf(() => headerOf(batch[i] ?? Buffer.of()));
            const ours = value && Object.fromEntries(value.tensors.map(({ name, dtype, shape, begin }) => [name, [dtype, shape, begin]]));
            expect(shim ?? undefined, batch[i]?.toString("latin1")).toEqual(ours);
            if (shim)
              expect(library).toEqual(Object.fromEntries(Object.entries(shim).map(([name, [dtype, shape]]) => [name, [dtype, shape]])));
            else if (library)
              expect(
                STRICTER.some((reason) => reason.test(refused?.detail ?? "")),
                refused?.detail,
              ).toBe(true);
            if (shim) taken += 1;
            else if (library) stricter += 1;
          }
        }),
        { numRuns: 200 * FACTOR, endOnFailure: true },
      );
      expect(taken).toBeGreaterThan(200);
      expect(stricter).toBeGreaterThan(20);
    },
    TIMEOUT_MS,
  );

  it.each([
    ["a tensor that occurs twice", '{"a":E,"a":E}'],
    ["metadata that occur twice", '{"__metadata__":{"k":"1","k":"2"},"a":E}'],
    ["metadata of null", '{"__metadata__":null,"a":E}'],
    ["a field beyond those of the format", '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}}'],
    ["a tensor without the names of its fields", '{"a":["U8",[1],[0,1]]}'],
    ["a dtype that is an object", '{"a":{"dtype":{"U8":null},"shape":[1],"data_offsets":[0,1]}}'],
    ["a size past 2^53", '{"a":E,"b":{"dtype":"U8","shape":[1152921504606846976,0],"data_offsets":[1,1]}}'],
  ])("are stricter than the library on %s", async (_what, json) => {
    const text = json.replaceAll("E", '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}');
    const file = Buffer.concat([startOfFile(Buffer.from(text)), Buffer.of(1)]);
    const [readings] = await read([file]);
    expect(readings?.library).not.toBeNull();
    expect(readings?.shim).toBeNull();
    expect(outcomeOf(() => headerOf(file)).refused).toBeDefined();
  });
});
