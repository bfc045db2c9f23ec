import { describe, expect, it } from "vitest";
import type { SearchResult } from "../../src/index.js";
import { formatCandidates, formatSpace, formatTable } from "../../src/tables.js";

const parent = { active_params: 2_000_000, params: 4_000_000, memory_mb: 12.25, flops: 1.5e12 };
const child = { active_params: 1_500_000, params: 3_000_000, memory_mb: 9.5, flops: 1e12 };
const FOUND: SearchResult = {
  parent,
  space: { num_layers: [4], hidden_size: [768, 1024], num_attention_heads: [8], ffn_hidden_size: [1536, 2048] },
  spaceSize: 4321,
  limits: { params: 3_200_000, memory_mb: 10 },
  primary: "params",
  feasible: 1234,
  candidates: [],
  warnings: [],
};
const candidate = { exportConfig: { num_layers: 4, hidden_size: 768, num_attention_heads: 8, ffn_hidden_size: 2048 }, costs: child };

const cells = (text: string): string[][] => text.split("\n").map((line) => line.trim().split(/\s{2,}/));

describe("formatTable", () => {
  it("lines up columns, numbers to the right with separators", () => {
    expect(
      formatTable([
        ["name", "size"],
        ["a", 1_234_567],
      ]),
    ).toBe("name       size\na     1,234,567");
    expect(formatTable([])).toBe("");
  });
});

describe("formatSpace", () => {
  it("has every choice, every metric with its bound, and how many subnets there are", () => {
    expect(cells(formatSpace(FOUND))).toEqual([
      ["hyperparameter", "choices"],
      ["num_layers", "4"],
      ["hidden_size", "768 1024"],
      ["num_attention_heads", "8"],
      ["ffn_hidden_size", "1536 2048"],
      [""],
      ["metric", "parent", "at most"],
      ["active_params", "2,000,000"],
      ["params", "4,000,000", "3,200,000"],
      ["memory_mb", "12.3", "10"],
      ["flops", "1.500e+12"],
      [""],
      ["4,321 subnets, 1,234 of them within the bounds"],
    ]);
  });
});

describe("formatSpace before the layers are chosen", () => {
  it("does not say how many subnets are within the bounds", () => {
    const { feasible: _, candidates: __, ...outline } = FOUND;
    expect(formatSpace(outline).split("\n").at(-1)).toBe(
      "4,321 subnets; how many of them are within the bounds depends on the layers that scores keep",
    );
  });
});

describe("formatCandidates", () => {
  it("has the sizes that differ, the costs and the share of the parent", () => {
    expect(cells(formatCandidates(FOUND, [candidate]))).toEqual([
      ["hidden_size", "ffn_hidden_size", "active_params", "params", "memory_mb", "flops", "share of params"],
      ["parent", "1024", "2048", "2,000,000", "4,000,000", "12.3", "1.500e+12", "100.0%"],
      ["1", "768", "2048", "1,500,000", "3,000,000", "9.5", "1.000e+12", "75.0%"],
    ]);
  });

  it("has the scores, where there are any", () => {
    const [header, , first, second] = cells(
      formatCandidates(FOUND, [
        { ...candidate, score: -1 / 3 },
        { ...candidate, score: 0 },
      ]),
    );
    expect([header, first, second].map((row) => row?.at(-1))).toEqual(["score", "-0.333333", "0.00000"]);
  });
});
