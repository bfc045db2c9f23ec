import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeSafetensors } from "../../src/checkpoint/writeSafetensors.js";
import { byteLength } from "../../src/tensor.js";
import { files, headerOf } from "./headers.js";
import { FACTOR, outcomeOf, Tally, TIMEOUT_MS } from "./outcome.js";

describe("a safetensors header", () => {
  it(
    "ends in tensors that fill the file and are written the same again, or in a PruneError",
    () => {
      const tally = new Tally();
      fc.assert(
        fc.property(files(2), (file) => {
          const { value } = tally.count(outcomeOf(() => headerOf(file)));
          if (!value) return true;
          const { tensors, raw, metadata } = value;
          const bytes = tensors.reduce((sum, { begin, end }) => sum + end - begin, raw.length);
          if (bytes !== file.length || tensors.some((info) => byteLength(info) !== info.end - info.begin)) return false;
          const again = headerOf(
            encodeSafetensors(
              tensors.map((info) => ({ ...info, data: file.subarray(info.begin, info.end) })),
              metadata,
            ),
          );
          return sameTensors(again.tensors, tensors) && JSON.stringify(again.metadata) === JSON.stringify(metadata);
        }),
        { numRuns: 40_000 * FACTOR },
      );
      expect(tally.share).toBeGreaterThan(0.05);
    },
    TIMEOUT_MS,
  );

  it(
    "of any bytes ends likewise",
    () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => void outcomeOf(() => headerOf(bytes))),
        { numRuns: 5000 * FACTOR },
      );
    },
    TIMEOUT_MS,
  );
});

type Described = ReturnType<typeof headerOf>["tensors"];

function sameTensors(a: Described, b: Described): boolean {
  const key = ({ name, dtype, shape }: Described[number]): string => JSON.stringify([name, dtype, shape]);
  return JSON.stringify(a.map(key).sort()) === JSON.stringify(b.map(key).sort());
}
