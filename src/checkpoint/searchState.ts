import { z } from "zod";
import { PruneError } from "../errors.js";
import { writeFileAtomically } from "./atomicFile.js";
import { isFile } from "./folder.js";
import { parseJsonObject, readDocument } from "./json.js";

export const SEARCH_FILE = "search.json";

const sizes = z.record(z.string(), z.number().int().positive());

const candidate = z.strictObject({ exportConfig: sizes, costs: z.record(z.string(), z.number()) });

const scored = z.strictObject({
  /** What the score is of: the scores that ranked, the options and the score function, as a hash. */
  context: z.string(),
  exportConfig: sizes,
  score: z.number(),
  /** Wall seconds that the evaluation took. */
  seconds: z.number().nonnegative(),
});

const run = z.strictObject({
  constraints: z.record(z.string(), z.unknown()),
  /** Subnets of the space, and how many of them met every bound; none where sizes were given. */
  spaceSize: z.number().optional(),
  feasible: z.number().optional(),
  exportConfig: sizes,
  score: z.number().optional(),
  params: z.number(),
});

const state = z.strictObject({
  format: z.literal("prunebridge.search/1"),
  fingerprint: z.string(),
  /** What the last search found, the largest first. */
  candidates: z.array(candidate),
  scored: z.array(scored),
  history: z.array(run),
});

/** What one pruning came to. */
export type HistoryEntry = z.infer<typeof run>;

/** What a search knows already: candidates that were found and evaluated, and what came of earlier runs on the same network. */
export type SearchState = Omit<z.infer<typeof state>, "format">;

/** What is known before the first search over a network. */
export function emptyState(fingerprint: string): SearchState {
  return { fingerprint, candidates: [], scored: [], history: [] };
}

/**
 * Reads the state of searches over one network; an empty one where there is no file.
 *
 * @throws PruneError CHECKPOINT_MISMATCH where the file is of another network or malformed
 */
export async function readSearchState(path: string, fingerprint: string): Promise<SearchState> {
  if (!(await isFile(path))) return emptyState(fingerprint);
  const found = parseSearchState(await readDocument(path, "CHECKPOINT_MISMATCH"), path);
  if (found.fingerprint === fingerprint) return found;
  throw new PruneError("CHECKPOINT_MISMATCH", `${path} is of another network (${found.fingerprint}, not ${fingerprint})`, {
    hint: "name another checkpoint folder for this network",
  });
}

/** Parses the text of a search state. Throws CHECKPOINT_MISMATCH that says which field of `where` is wrong. */
export function parseSearchState(text: string, where: string): SearchState {
  const parsed = state.safeParse(parseJsonObject(text, where, "CHECKPOINT_MISMATCH"));
  if (!parsed.success) {
    throw new PruneError("CHECKPOINT_MISMATCH", `${where} is no search state: ${z.prettifyError(parsed.error)}`, {
      hint: "name another checkpoint folder, or remove this file to score its candidates again",
    });
  }
  const { format: _, ...rest } = parsed.data;
  return rest;
}

/** Writes a search state in one step. */
export async function writeSearchState(path: string, searched: SearchState): Promise<void> {
  await writeFileAtomically(path, encodeSearchState(searched));
}

/** The text of a search state. */
export function encodeSearchState({ fingerprint, candidates, scored, history }: SearchState): string {
  const file = { format: "prunebridge.search/1", fingerprint, candidates, scored, history };
  return `${JSON.stringify(file, null, 2)}\n`;
}
