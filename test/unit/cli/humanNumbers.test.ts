import { expect, it } from "vitest";
import { parseCount, parseMemory } from "../../../src/cli/humanNumbers.js";

it.each([
  ["6e9", 6e9],
  ["6B", 6e9],
  ["7.5m", 7.5e6],
  ["60%", "60%"],
])("reads the count %s", (text, value) => {
  expect(parseCount(text)).toBe(value);
});

it.each([
  ["9000", 9000],
  ["12GiB", 12_288],
  ["1 GB", 1e9 / 2 ** 20],
  ["60%", "60%"],
])("reads the memory %s", (text, value) => {
  expect(parseMemory(text)).toBe(value);
});

it.each(["", "six", "6 X", "-1", "1e"])("refuses %j", (text) => {
  expect(() => parseCount(text)).toThrow(/must be a number/);
  expect(() => parseMemory(text)).toThrow(/must be/);
});
