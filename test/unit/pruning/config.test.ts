import { describe, expect, it } from "vitest";
import { python } from "../../../src/index.js";
import { tellerOf } from "../../../src/pruning/commonConfig.js";
import { parseConfig, refuseSearchOptions } from "../../../src/pruning/config.js";

const here = (): number => 0;

describe("parseConfig", () => {
  it("fills in the defaults", () => {
    expect(parseConfig({})).toEqual({
      checkpointEvery: 32,
      topK: 10,
      maxWidthPruning: 0.4,
      maxDepthPruning: 0.2,
      hparamsToSkip: [],
      seqLength: 4096,
      batchSize: 1,
      verbose: false,
      source: undefined,
    });
  });

  it("takes an option that is undefined for one that is not given", () => {
    const names = [
      "dataLoader",
      "forwardLoop",
      "scoreFunc",
      "checkpoint",
      "checkpointEvery",
      "scores",
      "topK",
      "verbose",
      "signal",
      "onProgress",
    ];
    expect(parseConfig(Object.fromEntries(names.map((name) => [name, undefined])))).toMatchObject(parseConfig({}));
  });

  it("makes one source of what calibrates", () => {
    expect(parseConfig({ dataLoader: python("a:b"), maxIterDataLoader: 2 }).source).toMatchObject({ maxBatches: 2 });
    expect(parseConfig({ forwardLoop: here }).source).toBe(here);
    expect(parseConfig({ dataLoader: [[[1, 2]]] }).source).toMatchObject({ size: 1 });
  });

  it.each<[object, RegExp]>([
    [{ data_loader: [] }, /data_loader/],
    [{ topK: 0 }, /topK/],
    [{ topK: 2.5 }, /topK/],
    [{ maxWidthPruning: 1 }, /maxWidthPruning must be a share from 0 to below 1/],
    [{ maxDepthPruning: -0.1 }, /maxDepthPruning/],
    [{ hparamsToSkip: "num_layers" }, /hparamsToSkip/],
    [{ candidateFilter: true }, /candidateFilter must be a function/],
    [{ scoreFunc: "calibration:score" }, /scoreFunc must be a function or python\(...\)/],
    [{ forwardLoop: [] }, /forwardLoop must be a function or python\(...\)/],
    [{ dataLoader: here }, /dataLoader must be an iterable or async iterable of batches, or python\(...\)/],
    [{ dataLoader: "calibration.jsonl" }, /dataLoader must be an iterable/],
    [{ collectFunc: [] }, /collectFunc must be a function/],
    [{ maxIterDataLoader: 0 }, /maxIterDataLoader/],
    [{ checkpoint: "" }, /checkpoint/],
    [{ checkpointEvery: 0 }, /checkpointEvery/],
    [{ verbose: "yes" }, /verbose must be true, false or a function/],
    [{ onProgress: true }, /onProgress must be a function/],
    [{ signal: new AbortController() }, /signal/],
    [{ scores: "a.safetensors", dataLoader: [] }, /scores excludes dataLoader and forwardLoop/],
    [{ scores: "a.safetensors", forwardLoop: here }, /scores excludes dataLoader and forwardLoop/],
    [{ forwardLoop: here, dataLoader: [] }, /forwardLoop excludes dataLoader/],
    [{ collectFunc: here }, /collectFunc without a dataLoader/],
    [{ maxIterDataLoader: 3, scores: "a.safetensors" }, /maxIterDataLoader without a dataLoader/],
    [{ checkpointEvery: 32 }, /checkpointEvery without a checkpoint/],
  ])("refuses %o", (config, says) => {
    expect(() => parseConfig(config)).toThrow(expect.objectContaining({ code: "BAD_OPTION", detail: expect.stringMatching(says) }));
  });
});

describe("refuseSearchOptions", () => {
  it.each([
    { scoreFunc: here },
    { candidateFilter: () => true },
    { topK: 10 },
    { hparamsToSkip: [] },
    { maxWidthPruning: 0.4 },
    { maxDepthPruning: 0.2 },
  ])("refuses %o, also where it is the default", (config) => {
    const [name] = Object.keys(config);
    expect(() => refuseSearchOptions(config)).toThrow(
      expect.objectContaining({
        code: "BAD_OPTION",
        detail: expect.stringMatching(new RegExp(`a search under bounds alone uses ${name}$`)),
      }),
    );
  });

  it("takes what is not given", () => {
    expect(() => refuseSearchOptions({ topK: undefined, scoreFunc: undefined })).not.toThrow();
  });
});

describe("tellerOf", () => {
  it("is a function that was given, or nothing", () => {
    const tell = (): void => {};
    expect(tellerOf(tell)).toBe(tell);
    expect(tellerOf(false)).toBeUndefined();
  });
});
