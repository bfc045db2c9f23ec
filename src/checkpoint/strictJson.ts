import { visit } from "jsonc-parser";

/** Levels of nesting that are read: more than any document has, and few enough for whatever walks it. */
const MAX_DEPTH = 64;

const LONE_SURROGATE = /\p{Surrogate}/u;

/** What strict JSON may hold beyond its grammar. */
export interface StrictOptions {
  /** Numbers are whole, and written in digits alone. */
  readonly digitsOnly?: boolean;
}

/**
 * Parses JSON that every reader takes for the same: no name occurs twice in an object, where some take the first and some the last, no text
 * is outside of Unicode, and nothing is nested so deep that some readers fail.
 *
 * @throws SyntaxError that says what is wrong
 */
export function parseStrictJson(text: string, options: StrictOptions = {}): unknown {
  if (text.startsWith("\ufeff")) throw new SyntaxError("it begins with a byte order mark; save it without one");
  const value: unknown = JSON.parse(text);
  checkStrict(text, options);
  return value;
}

function checkStrict(text: string, { digitsOnly = false }: StrictOptions): void {
  const names: Set<string>[] = [];
  let depth = 0;
  const enter = (): void => {
    depth += 1;
    if (depth > MAX_DEPTH) throw new SyntaxError(`it is nested more than ${MAX_DEPTH} levels deep`);
  };
  visit(text, {
    onObjectBegin: () => {
      enter();
      names.push(new Set());
    },
    onObjectEnd: () => {
      depth -= 1;
      names.pop();
    },
    onArrayBegin: enter,
    onArrayEnd: () => {
      depth -= 1;
    },
    onObjectProperty: (name) => {
      checkUnicode(name);
      const seen = names.at(-1);
      if (seen?.has(name)) throw new SyntaxError(`the name ${JSON.stringify(name)} occurs twice in one object`);
      seen?.add(name);
    },
    onLiteralValue: (literal: unknown, offset, length) => {
      if (typeof literal === "string") checkUnicode(literal);
      if (digitsOnly && typeof literal === "number") checkDigits(text.slice(offset, offset + length));
    },
  });
}

function checkUnicode(text: string): void {
  if (LONE_SURROGATE.test(text)) throw new SyntaxError(`${JSON.stringify(text)} holds half of a character`);
}

function checkDigits(text: string): void {
  if (!/^\d+$/.test(text)) throw new SyntaxError(`${text} is not a whole number in digits`);
}
