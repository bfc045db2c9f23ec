import fc from "fast-check";
import { type Edit, writeEdited } from "./written.js";

const lists = (levels: number): string => "[".repeat(levels) + "]".repeat(levels);
const objects = (levels: number): string => `${'{"a":'.repeat(levels)}1${"}".repeat(levels)}`;

/** Names and texts, as they are written, that have surprised readers of JSON. */
const NAMES = [
  '""',
  '"__proto__"',
  '"constructor"',
  '"toString"',
  '"hasOwnProperty"',
  '"__metadata__"',
  '"\\ud800"',
  '"\\ud83d\\ude00"',
  '"é漢😀"',
  '"\\u0000"',
  '".."',
  '"../../etc/passwd"',
  '"/etc/passwd"',
  '"a/b.safetensors"',
  '"a\\u0000.safetensors"',
  '"e\\u0301"',
  '"{layer}"',
  '"00"',
  '"-1"',
  `"${"x".repeat(3000)}"`,
];

const WORDS = ["null", "true", "false", "{}", "[]", "[[]]", "NaN", "Infinity", "-Infinity", '"0-16777215"', '"0-3,7"', '"3-1"'];
const DIGITS = ["0", "1", "2", "3", "8", "-0", "-1", "0.5", "4.0", "1e1", "1E400", "-1e400", "01", "0x10", "16777217", "1099511627776"];
const LARGE = ["9007199254740991", "9007199254740992", "18446744073709551616", "9".repeat(400)];
const INHERITED = ['{"toString":1,"valueOf":1}', '{"__proto__":{"length":3}}'];
const DEEP = [lists(64), lists(65), lists(100), lists(4000), objects(200)];
const INDENTED = [`\n${" ".repeat(200)}1`, `\n${"\t".repeat(40)}2`, `\n${" ".repeat(198)}[\n1]`];
const VALUES = [...WORDS, ...DIGITS, ...LARGE, ...INHERITED, ...DEEP, ...INDENTED];

const NUMBERS = fc.integer({ min: -3, max: 100 }).map(String);

/** Edits of a document; `own` are literals that mean something in it. */
function edits(own: readonly string[], most: number): fc.Arbitrary<Edit[]> {
  const text = fc.oneof(fc.constantFrom(...VALUES), fc.constantFrom(...NAMES), NUMBERS, fc.constantFrom(...own));
  const kind = fc.constantFrom<Edit["kind"]>("replace", "replace", "replace", "drop", "repeat", "rename", "nest", "graft", "swap");
  return fc.array(fc.record({ kind, at: fc.nat(5000), from: fc.nat(5000), text }), { maxLength: most });
}

/** Like {@link near}, as text. */
export function nearText(values: fc.Arbitrary<unknown>, own: readonly string[], most: number): fc.Arbitrary<string> {
  return near(values, own, most).map((bytes) => bytes.toString());
}

interface Damage {
  readonly kind: "none" | "cut" | "set" | "insert" | "splice";
  readonly at: number;
  readonly bytes: Uint8Array;
}

const damages: fc.Arbitrary<Damage> = fc.record({
  kind: fc.constantFrom<Damage["kind"]>("none", "none", "none", "none", "none", "cut", "set", "insert", "splice"),
  at: fc.nat(100_000),
  bytes: fc.oneof(fc.uint8Array({ maxLength: 4 }), fc.constantFrom(Uint8Array.of(0xef, 0xbb, 0xbf), Uint8Array.of(0xed, 0xa0, 0x80))),
});

/** Documents near the given ones: some of their places changed, few of them cut, damaged or spliced together as bytes. */
export function near(values: fc.Arbitrary<unknown>, own: readonly string[], most: number): fc.Arbitrary<Buffer> {
  return fc.tuple(values, edits(own, most), damages).map(([value, changes, damage]) => {
    const whole = Buffer.from(writeEdited(value, changes));
    return inflict(whole, damage);
  });
}

function inflict(whole: Buffer, { kind, at, bytes }: Damage): Buffer {
  const place = at % (whole.length + 1);
  const [before, after] = [whole.subarray(0, place), whole.subarray(place)];
  switch (kind) {
    case "none":
      return whole;
    case "cut":
      return before;
    case "set":
      return Buffer.concat([before, bytes, after.subarray(bytes.length)]);
    case "insert":
      return Buffer.concat([before, bytes, after]);
    case "splice":
      return Buffer.concat([before, whole.subarray(whole.length - place)]);
  }
}
