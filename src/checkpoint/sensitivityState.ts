import { z } from "zod";
import { PruneError } from "../errors.js";
import { writeFileAtomically } from "./atomicFile.js";
import { isFile } from "./folder.js";
import { parseJsonObject, readDocument } from "./json.js";

export const SENSITIVITY_FILE = "sensitivity.json";

const sizes = z.record(z.string(), z.number().int().positive());

/** What a sensitivity depends on, each as a hash. */
const subject = z.strictObject({
  network: z.string(),
  dummyInput: z.string(),
  choices: z.string(),
  scoreFunc: z.string(),
  calibration: z.string(),
});

const run = z.strictObject({
  constraints: z.record(z.string(), z.unknown()),
  sizes,
  params: z.number(),
  flops: z.number(),
  /** The most that a choice of it costs of the score. */
  degradation: z.number(),
});

const state = z.strictObject({
  format: z.literal("prunebridge.sensitivity/1"),
  subject,
  originalScore: z.number(),
  /** What each choice of a hyperparameter costs of the score, ascending by size, as measured. */
  degradations: z.record(z.string(), z.array(z.number()).min(1)),
  history: z.array(run),
});

/** What a sensitivity is of: the network, the names, dtypes and shapes of the input it was traced with, the choices, the score function and the calibration data. */
export type SensitivitySubject = z.infer<typeof subject>;

/** What one pruning came to. */
export type NetworkHistoryEntry = z.infer<typeof run>;

/** The sensitivities that are known of one network, and what came of them. */
export type SensitivityState = Omit<z.infer<typeof state>, "format">;

/** Reads what is known; undefined where there is no file. Throws CHECKPOINT_MISMATCH where it is malformed. */
export async function readSensitivityState(path: string): Promise<SensitivityState | undefined> {
  return (await isFile(path)) ? parseSensitivityState(await readDocument(path, "CHECKPOINT_MISMATCH"), path) : undefined;
}

/** Parses the text of a sensitivity state. Throws CHECKPOINT_MISMATCH that says which field of `where` is wrong. */
export function parseSensitivityState(text: string, where: string): SensitivityState {
  const parsed = state.safeParse(parseJsonObject(text, where, "CHECKPOINT_MISMATCH"));
  if (!parsed.success) {
    throw new PruneError("CHECKPOINT_MISMATCH", `${where} is no sensitivity: ${z.prettifyError(parsed.error)}`, {
      hint: "name another checkpoint folder, or remove this file to measure again",
    });
  }
  const { format: _, ...rest } = parsed.data;
  return rest;
}

/** Writes a sensitivity state in one step. */
export async function writeSensitivityState(path: string, known: SensitivityState): Promise<void> {
  await writeFileAtomically(path, encodeSensitivityState(known));
}

/** The text of a sensitivity state. */
export function encodeSensitivityState({ subject, originalScore, degradations, history }: SensitivityState): string {
  return `${JSON.stringify({ format: "prunebridge.sensitivity/1", subject, originalScore, degradations, history }, null, 2)}\n`;
}

const NAMES: Readonly<Record<keyof SensitivitySubject, string>> = {
  network: "another network",
  dummyInput: "a network that was traced with another dummy input, of other names, dtypes or shapes",
  choices: "other choices, by other options of the mode",
  scoreFunc: "another scoreFunc",
  calibration: "a network that was calibrated with other data",
};

/** Throws CHECKPOINT_MISMATCH where a sensitivity is of something else than is expected, as far as that is told; says of what. */
export function checkSubject(path: string, found: SensitivitySubject, expected: Partial<SensitivitySubject>): void {
  const names = Object.keys(NAMES) as (keyof SensitivitySubject)[];
  const other = names.find((name) => expected[name] !== undefined && found[name] !== expected[name]);
  if (other === undefined) return;
  throw new PruneError("CHECKPOINT_MISMATCH", `${path} is of ${NAMES[other]}`, {
    hint: "name another checkpoint folder; or remove this file to measure again",
  });
}
