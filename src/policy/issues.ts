import type { z } from "zod";

/** What zod found wrong in options, each with its path, as one line. */
export function formatIssues({ issues }: z.ZodError): string {
  return issues.map(({ path, message }) => [path.join("."), message].filter(Boolean).join(" ")).join("; ");
}
