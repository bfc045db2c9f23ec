/** A value as errors show it, whatever it is: JSON, where it has that form. */
export function shown(value: unknown): string {
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  try {
    return JSON.stringify(value) ?? typeof value;
  } catch {
    return typeof value; // circular, or with a BigInt within
  }
}
