import { closest } from "fastest-levenshtein";

/** `did you mean "x"?`, or the list of legal names where it is short: the end of an error about an unknown name. */
export function suggestName(given: string, legal: readonly string[]): string {
  return `did you mean ${closest(given, [...legal])}? Legal names: ${legal.join(", ")}`;
}
