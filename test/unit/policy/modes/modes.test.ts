import { describe, expect, it } from "vitest";
import { parseModes } from "../../../../src/policy/modes/modes.js";

describe("parseModes", () => {
  it.each<[object, RegExp]>([
    [{ hidden_size_divisor: 0 }, /hidden_size_divisor .*>0/],
    [{ ffn_hidden_size_divisor: -256 }, /ffn_hidden_size_divisor .*>0/],
    [{ num_layers_divisor: 1.5 }, /num_layers_divisor .*expected int/],
    [{ num_moe_experts_divisor: "8" }, /num_moe_experts_divisor .*expected number/],
    [{ skip_sorting: 1 }, /skip_sorting .*expected boolean/],
    [{ max_width_pruning: 0.4 }, /max_width_pruning/],
  ])("refuses options %j by their name", (options, says) => {
    expect(() => parseModes({ mcore_gpt_minitron: options })).toThrow(
      expect.objectContaining({ code: "BAD_MODE", detail: expect.stringMatching(says), hint: expect.stringMatching(/known options: /) }),
    );
  });

  it.each<[object, RegExp]>([
    [{ "nn.Conv2d": { "*": { channel_divisor: 0 } } }, /nn.Conv2d.\*.channel_divisor .*>0/],
    [{ "nn.Conv2d": { "*": { feature_divisor: 8 } } }, /feature_divisor/],
    [{ "nn.Linear": { "*": { features_ratio: [1.5] } } }, /features_ratio.0 .*<=1/],
    [{ "nn.Conv4d": {} }, /nn.Conv4d/],
  ])("refuses options %j of fastnas by their name", (options, says) => {
    expect(() => parseModes([["fastnas", options]])).toThrow(
      expect.objectContaining({ code: "BAD_MODE", detail: expect.stringMatching(says), hint: expect.stringMatching(/nn.ConvTranspose2d/) }),
    );
  });

  it("lets a module of fastnas be left as it is", () => {
    expect(parseModes({ fastnas: { "nn.Conv2d": { down: null } } })).toEqual([
      { name: "fastnas", options: { "nn.Conv2d": { down: null } } },
    ]);
  });
});
