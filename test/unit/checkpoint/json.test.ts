import { describe, expect, it } from "vitest";
import { parseConfig, patchConfigText } from "../../../src/checkpoint/json.js";

const TEXT = `{
  "hidden_size": 32,
  "time_step_limit": [0.0, Infinity],
  "deep": {"least": -Infinity, "says": "Infinity, \\"Infinity\\" and 0.0"},
  "router_jitter_noise": 0.0
}
`;

describe("the text of a config.json", () => {
  it("is read with the infinite numbers that Python writes", () => {
    expect(parseConfig(TEXT, "config.json")).toEqual({
      hidden_size: 32,
      time_step_limit: [0, Number.POSITIVE_INFINITY],
      deep: { least: Number.NEGATIVE_INFINITY, says: 'Infinity, "Infinity" and 0.0' },
      router_jitter_noise: 0,
    });
    expect(() => parseConfig("{", "there/config.json")).toThrow(/BAD_CONFIG.*there\/config.json is not JSON/);
  });

  it("changes where it is patched and nowhere else", () => {
    const patched = patchConfigText(TEXT, { hidden_size: 16, head_dim: 8, layer_types: ["a", "b"] });
    expect(patched.replace("16", "32").split("\n").slice(0, 4)).toEqual(TEXT.split("\n").slice(0, 4));
    expect(patched).toContain('"router_jitter_noise": 0.0,');
    expect(parseConfig(patched, "")).toEqual({ ...parseConfig(TEXT, ""), hidden_size: 16, head_dim: 8, layer_types: ["a", "b"] });
  });

  it("on one line is patched, too", () => {
    expect(patchConfigText('{"a": 1, "b": 2.0}', { a: 3 })).toBe('{"a": 3, "b": 2.0}');
  });
});
