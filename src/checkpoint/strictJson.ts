/** Levels of nesting that are read: more than any document has, and few enough for whatever walks it. */
const MAX_DEPTH = 64;

const LONE_SURROGATE = /\p{Surrogate}/u;
const NOT_IN_DIGITS = /[-+.eE]/;

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
export function parseStrictJson(text: string, { digitsOnly = false }: StrictOptions = {}): unknown {
  if (text.startsWith("\ufeff")) throw new SyntaxError("it begins with a byte order mark; save it without one");
  const value: unknown = JSON.parse(text);
  checkStrict(text, digitsOnly);
  return value;
}

/** Where a string ends that begins with the quote at `begin`; the text's end where nothing closes it. */
export function endOfString(text: string, begin: number): number {
  for (let quote = text.indexOf('"', begin + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let slashes = 0;
    while (text[quote - 1 - slashes] === "\\") slashes += 1;
    if (slashes % 2 === 0) return quote + 1;
  }
  return text.length;
}

/** Looks at the text, since a value no longer tells; the text is JSON. */
function checkStrict(text: string, digitsOnly: boolean): void {
  const names: Set<string>[] = [];
  for (let at = 0; at < text.length; at++) {
    const character = text[at] ?? "";
    if (character === '"') {
      const end = endOfString(text, at);
      checkString(text.slice(at, end), isName(text, end) ? names.at(-1) : undefined);
      at = end - 1;
    } else if (character === "{" || character === "[") {
      names.push(new Set());
      if (names.length > MAX_DEPTH) throw new SyntaxError(`it is nested more than ${MAX_DEPTH} levels deep`);
    } else if (character === "}" || character === "]") {
      names.pop();
    } else if (digitsOnly && NOT_IN_DIGITS.test(character)) {
      throw new SyntaxError(`${/[^,\]}]*/.exec(text.slice(at, at + 40))?.[0]} is not a whole number in digits`);
    }
  }
}

function isName(text: string, end: number): boolean {
  let at = end;
  while (" \t\r\n".includes(text[at] ?? ".")) at += 1;
  return text[at] === ":";
}

/** @param seen - the names before it in its object, where it is a name */
function checkString(written: string, seen: Set<string> | undefined): void {
  if (!seen && !written.includes("\\u")) return;
  const read = JSON.parse(written) as string; // what is written between quotes is one
  if (LONE_SURROGATE.test(read)) throw new SyntaxError(`${written} holds half of a character`);
  if (seen?.has(read)) throw new SyntaxError(`the name ${written} occurs twice in one object`);
  seen?.add(read);
}
