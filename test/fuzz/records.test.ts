import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeArchitectureFile, parseArchitectureFile } from "../../src/checkpoint/architectureFile.js";
import { parseManifest } from "../../src/checkpoint/manifest.js";
import { encodeSearchState, parseSearchState } from "../../src/checkpoint/searchState.js";
import { encodeSensitivityState, parseSensitivityState } from "../../src/checkpoint/sensitivityState.js";
import { parseIndex } from "../../src/checkpoint/shardIndex.js";
import { parseTexts } from "../../src/data/textFile.js";
import { nearText } from "./documents.js";
import { FACTOR, type Outcome, outcomeOf, Tally, TIMEOUT_MS } from "./outcome.js";

const INDEX = {
  metadata: { total_size: 100 },
  weight_map: { a: "model-00001-of-00002.safetensors", b: "model-00001-of-00002.safetensors", c: "model-00002-of-00002.safetensors" },
};

const MANIFEST = {
  format: "prunebridge.manifest/1",
  version: "0.1.0",
  planHash: "sha256:00",
  parent: { path: "/parent", fingerprint: "sha256:11" },
  params: { parent: 100, child: 50 },
  laidOut: { layout: "huggingface", format: "safetensors" },
  shards: [{ file: "model.safetensors", bytes: 123, crc32: "0123abcd" }],
  carried: ["tokenizer.json"],
};

const SEARCH = {
  format: "prunebridge.search/1",
  fingerprint: "sha256:11",
  candidates: [{ exportConfig: { ffn_hidden_size: 8 }, costs: { params: 100 } }],
  scored: [{ context: "sha256:22", exportConfig: { hidden_size: 8 }, score: -1.5, seconds: 0.25 }],
  history: [{ constraints: { params: "60%" }, spaceSize: 3, feasible: 2, exportConfig: { hidden_size: 8 }, score: 1, params: 7 }],
};

const SENSITIVITY = {
  format: "prunebridge.sensitivity/1",
  subject: { network: "11", dummyInput: "22", choices: "33", scoreFunc: "44", calibration: "none" },
  originalScore: -0.5,
  degradations: { "stem.out_channels": [1.5, 0] },
  history: [{ constraints: { flops: "50%" }, sizes: { "stem.out_channels": 8 }, params: 7, flops: 9, degradation: 0.25 }],
};

const ARCHITECTURE = {
  format: "prunebridge.architecture/1",
  source: { transformers: "ResNetModel", config: { model_type: "resnet", hidden_sizes: [8, 16] } },
  modules: { stem: { out_channels: 8 } },
  tensors: { "stem.weight": [8, 3, 3, 3] },
};

/** Tries a reader on documents near a good one; gives the share that it took. `hold` fails by false, or gives what became of a text. */
function shareTaken(document: unknown, own: readonly string[], runs: number, hold: (text: string) => false | Outcome<unknown>): number {
  const tally = new Tally();
  fc.assert(
    fc.property(nearText(fc.constant(document), own, 2), (text) => {
      const held = hold(text);
      if (held) tally.count(held);
      return held !== false;
    }),
    { numRuns: runs * FACTOR },
  );
  return tally.share;
}

describe("near good ones,", () => {
  it(
    "an index places tensors in files beside it, or is refused",
    () => {
      const own = ['"model-00002-of-00002.safetensors"', '"..safetensors"', '"a\\\\b.safetensors"', '".safetensors"'];
      const share = shareTaken(INDEX, own, 8000, (text) => {
        const read = outcomeOf(() => parseIndex(text, "index"));
        const { value: index } = read;
        if (!index) return read;
        const beside = [...index.files.keys()].every((file) => !/[/\0]/.test(file) && file.endsWith(".safetensors"));
        const whole = [...index.fileOf].every(([tensor, file]) => index.files.get(file)?.includes(tensor));
        return beside && whole && read;
      });
      expect(share).toBeGreaterThan(0.1);
    },
    TIMEOUT_MS,
  );

  it(
    "a manifest is read, or refused",
    () => {
      const own = ['"0123abcd"', '"../model.safetensors"', '"model.safetensors\\n"', '"prunebridge.manifest/2"'];
      const share = shareTaken(MANIFEST, own, 6000, (text) => {
        const read = outcomeOf(() => parseManifest(text, "manifest"));
        return read.value?.shards.every(({ file, bytes }) => /^[^/\n]+\.safetensors$/.test(file) && Number.isSafeInteger(bytes)) === false
          ? false
          : read;
      });
      expect(share).toBeGreaterThan(0.1);
    },
    TIMEOUT_MS,
  );

  it.each<[string, unknown, string, (text: string) => string]>([
    ["a search state", SEARCH, '"prunebridge.search/1"', (text) => encodeSearchState(parseSearchState(text, "search"))],
    ["a sensitivity", SENSITIVITY, '"none"', (text) => encodeSensitivityState(parseSensitivityState(text, "sensitivity"))],
    [
      "an architecture",
      ARCHITECTURE,
      '{"entrypoint":"a:b","kwargs":{}}',
      (text) => encodeArchitectureFile(parseArchitectureFile(text, "it")),
    ],
  ])(
    "%s is written again as the same, or refused",
    (_what, document, own, rewrite) => {
      const share = shareTaken(document, ['{"a":1}', "1e308", own], 6000, (text) => {
        const written = outcomeOf(() => rewrite(text));
        return written.value === undefined || rewrite(written.value) === written.value ? written : false;
      });
      expect(share).toBeGreaterThan(0.1);
    },
    TIMEOUT_MS,
  );

  it(
    "lines of texts are read, or refused with their number",
    () => {
      const share = shareTaken({ text: "a text", more: [1] }, ['"text"', '"a\\nb"'], 5000, (line) => {
        const read = outcomeOf(() => parseTexts(`{"text":"first"}\n\n${line}\n`, "x.jsonl"));
        return read.refused && !/^x\.jsonl:[34]/.test(read.refused.detail) ? false : read;
      });
      expect(share).toBeGreaterThan(0.1);
    },
    TIMEOUT_MS,
  );
});
