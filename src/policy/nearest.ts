import { closest } from "fastest-levenshtein";

// Names come from files and may be as long as those.
const MOST_COMPARED = 200;

/** `did you mean "x"?`, or the list of legal names where it is short: the end of an error about an unknown name. */
export function suggestName(given: string, legal: readonly string[]): string {
  return `did you mean ${closest(given.slice(0, MOST_COMPARED), [...legal])}? Legal names: ${legal.join(", ")}`;
}
