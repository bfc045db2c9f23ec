import { describe, expect, it } from "vitest";
import type { ForwardArgs } from "../../../src/data/args.js";
import { type DataSource, toBatches } from "../../../src/data/toBatches.js";
import type { Batch, Batches } from "../../../src/tensor.js";

async function draw(batches: Batches): Promise<Batch[]> {
  const drawn: Batch[] = [];
  for await (const batch of batches) drawn.push(batch);
  return drawn;
}

/** A source that tells how many were drawn of it, and whether it was returned. */
function counted(length: number): { source: DataSource; seen: { drawn: number; returned: boolean } } {
  const seen = { drawn: 0, returned: false };
  const source = (async function* (): AsyncGenerator<ForwardArgs> {
    try {
      while (seen.drawn < length) yield [[seen.drawn++]];
    } finally {
      seen.returned = true;
    }
  })();
  return { source, seen };
}

describe("toBatches", () => {
  it("takes arrays, generators and async iterables of any form of arguments", async () => {
    const args: ForwardArgs[] = [[[1, 2]], Int32Array.of(1, 2), { input_ids: [[1, 2]] }];
    const expected = await draw(toBatches([args[0] as ForwardArgs, args[0] as ForwardArgs, args[0] as ForwardArgs]));
    expect(await draw(toBatches(args))).toEqual(expected);
    expect(await draw(toBatches(new Set(args)))).toEqual(expected);
    expect(
      await draw(
        toBatches(
          (async function* () {
            yield* args;
          })(),
        ),
      ),
    ).toEqual(expected);
  });

  it("has collectFunc make the arguments of what the loader gives, also in its own time", async () => {
    const rows = [{ text: "ab" }, { text: "abc" }];
    const made = toBatches(rows, { collectFunc: async ({ text }) => [Array.from(text, (letter) => letter.charCodeAt(0))] });
    expect((await draw(made)).map(({ input_ids }) => input_ids?.shape)).toEqual([
      [1, 2],
      [1, 3],
    ]);
  });

  it("draws no more than asked for, and returns the source", async () => {
    const { source, seen } = counted(10);
    expect(await draw(toBatches(source, { maxBatches: 3 }))).toHaveLength(3);
    expect(seen).toEqual({ drawn: 3, returned: true });
  });

  it("returns the source where its own reader leaves, and where a batch is refused", async () => {
    const left = counted(10);
    for await (const batch of toBatches(left.source)) if (batch) break;
    expect(left.seen).toEqual({ drawn: 1, returned: true });
    const refused = counted(10);
    await expect(draw(toBatches(refused.source, { collectFunc: () => ({}) }))).rejects.toThrow(/batch 0 has no input_ids/);
    expect(refused.seen).toEqual({ drawn: 1, returned: true });
  });

  it("knows its size where the source does, also when that is known late", () => {
    const late: { size: number | undefined } & Iterable<ForwardArgs> = { size: undefined, [Symbol.iterator]: () => [][Symbol.iterator]() };
    const batches = toBatches(late, { maxBatches: 4 });
    expect(batches.size).toBeUndefined();
    late.size = 9;
    expect(batches.size).toBe(4);
    expect(toBatches([[[1]], [[2]]]).size).toBe(2);
  });

  it.each([
    ["a function", () => {}],
    ["nothing", undefined],
    ["one typed array", new Int32Array(3)],
    ["one object", { input_ids: [[1]] }],
  ])("refuses %s", (_what, source) => {
    expect(() => toBatches(source as unknown as DataSource)).toThrow(/no iterable of batches/);
  });
});
