import { describe, expect, it } from "vitest";
import { type ArchitectureFile, encodeArchitectureFile, parseArchitectureFile } from "../../../src/checkpoint/architectureFile.js";

const BUILT: ArchitectureFile = {
  source: { entrypoint: "digits:build", kwargs: { widths: [16, 32], name: "[ 1, 2 ]" } },
  modules: { "layer1.0.conv1": { in_channels: 16, out_channels: 24 } },
  tensors: { "layer1.0.conv1.weight": [24, 16, 3, 3], "bn.num_batches_tracked": [] },
};
const OF_TRANSFORMERS: ArchitectureFile = {
  source: { transformers: "BertForMaskedLM", configText: '{\n  "hidden_size": 32,\n  "hidden_dropout_prob": 0.0\n}' },
  modules: { "encoder.layer.3.attention.self": { num_attention_heads: 2, all_head_size: 16 } },
  tensors: { "encoder.layer.3.attention.self.query.weight": [16, 32] },
};

describe("an architecture file", () => {
  it.each([
    ["a built network", BUILT],
    ["one of transformers", OF_TRANSFORMERS],
  ])("reads back as it was written, of %s", (_what, file) => {
    expect(parseArchitectureFile(encodeArchitectureFile(file), "here")).toEqual(file);
  });

  it("has each shape on a line", () => {
    expect(encodeArchitectureFile(BUILT)).toContain('    "layer1.0.conv1.weight": [24, 16, 3, 3],\n    "bn.num_batches_tracked": []\n');
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    ["another format", { format: "prunebridge.architecture/2" }, /format/],
    ["an unknown field", { extra: 1 }, /extra/],
    ["no source", { source: {} }, /source/],
    ["two sources", { source: { ...BUILT.source, transformers: "BertModel", config: {} } }, /source/],
    ["a size with a fraction", { modules: { conv: { out_channels: 1.5 } } }, /out_channels/],
    ["a negative size", { tensors: { weight: [-1] } }, /weight/],
  ])("is refused with %s", (_what, changed, says) => {
    const text = JSON.stringify({ format: "prunebridge.architecture/1", ...BUILT, ...changed });
    expect(() => parseArchitectureFile(text, "here")).toThrow(
      expect.objectContaining({ code: "BAD_CONFIG", detail: expect.stringMatching(says) }),
    );
  });
});
