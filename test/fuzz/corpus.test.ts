import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { parseConfig, patchConfigText, readDocument } from "../../src/checkpoint/json.js";
import { parseManifest } from "../../src/checkpoint/manifest.js";
import { readHeader } from "../../src/checkpoint/safetensors.js";
import { writeScoreFile } from "../../src/checkpoint/scoreFile.js";
import { readSearchState } from "../../src/checkpoint/searchState.js";
import { parseIndex } from "../../src/checkpoint/shardIndex.js";
import { inspect, readCalibrationData, readPlanFile, readScoreFile } from "../../src/index.js";
import { readArchitecture } from "../../src/policy/architecture.js";
import { checkPlan } from "../../src/policy/checkPlan.js";
import { TINY_LLAMA, temporaryFolder } from "../fixtures/checkpoints.js";
import { outcomeOfReading } from "./outcome.js";

const CORPUS = fileURLToPath(new URL("corpus", import.meta.url));

/** What takes the files of each folder of the corpus. */
const READERS: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
  config: async (path) => {
    await inspect(path);
    const text = await readDocument(path, "BAD_CONFIG");
    const patched = parseConfig(patchConfigText(text, { hidden_size: 8, layer_types: ["a"] }), "patched");
    expect(patched).toEqual({ ...parseConfig(text, path), hidden_size: 8, layer_types: ["a"] });
  },
  header: readHeader,
  index: async (path) => parseIndex(await readDocument(path, "BAD_INDEX"), path),
  manifest: async (path) => parseManifest(await readDocument(path, "VERIFY_FAILED"), path),
  plan: async (path) => checkPlan(readArchitecture(TINY_LLAMA), TINY_LLAMA, await readPlanFile(path), path),
  scores: async (path) => {
    const scores = await readScoreFile(path);
    const again = join(await temporaryFolder(), "again.safetensors");
    await writeScoreFile(again, scores);
    expect((await readScoreFile(again)).accumulators).toEqual(scores.accumulators);
  },
  search: (path) => readSearchState(path, ""),
  texts: (path) => readCalibrationData(path, 50, { seqLength: 8, samples: 8, batchSize: 1 }),
};

describe.each(Object.entries(READERS))("%s", (kind, read) => {
  it.each(filesOf(kind, "refused"))("refuses %s", async (_name, path) => {
    expect((await outcomeOfReading(() => read(path))).refused).toBeDefined();
  });

  it.each(filesOf(kind, "taken"))("takes %s", async (_name, path) => {
    expect((await outcomeOfReading(() => read(path))).refused).toBeUndefined();
  });
});

it("a config of a long text beside an infinite number is taken", () => {
  const text = JSON.stringify({ says: '\\"x'.repeat(7_000_000) });
  expect(parseConfig(text.replace(/\}$/, ',"most":Infinity}'), "config.json")["most"]).toBe(Number.POSITIVE_INFINITY);
});

function filesOf(kind: string, verdict: string): [string, string][] {
  const folder = join(CORPUS, kind, verdict);
  return readdirSync(folder).map((name) => [name, join(folder, name)]);
}
