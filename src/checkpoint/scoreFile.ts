import { PruneError } from "../errors.js";
import { asFloat32, bytesOf } from "../tensor.js";
import { writeFileAtomically } from "./atomicFile.js";
import { readSmallHeader, readTensorBytes } from "./safetensors.js";
import { encodeSafetensors } from "./writeSafetensors.js";

/** A file of raw accumulators, and where they come from. */
export interface ScoreFile {
  readonly accumulators: ReadonlyMap<string, { readonly shape: readonly number[]; readonly data: Float32Array }>;
  /** Fingerprint of the checkpoint that was scored; undefined in files that other tools wrote. */
  readonly fingerprint: string | undefined;
  /** What was run: batches, samples, tokens. */
  readonly provenance: Readonly<Record<string, string>>;
}

const FORMAT = "prunebridge.scores/1";

/** Reads a score file. Throws PATH_NOT_FOUND, BAD_SAFETENSORS, or BAD_SCORES on a dtype other than F32. */
export async function readScoreFile(path: string): Promise<ScoreFile> {
  const header = await readSmallHeader(path);
  const accumulators = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  for (const tensor of header.tensors) {
    if (tensor.dtype !== "F32") throw new PruneError("BAD_SCORES", `${path}: ${tensor.name} is ${tensor.dtype}; scores are F32`);
    accumulators.set(tensor.name, { shape: tensor.shape, data: asFloat32({ data: await readTensorBytes(header, tensor) }) });
  }
  const { format: _format, fingerprint, ...provenance } = header.metadata;
  return { accumulators, fingerprint, provenance };
}

/** Writes a score file in one step: its name never shows half of it. */
export async function writeScoreFile(path: string, scores: ScoreFile): Promise<void> {
  const tensors = [...scores.accumulators].map(([name, { shape, data }]) => ({
    name,
    dtype: "F32" as const,
    shape,
    data: bytesOf(data),
  }));
  const metadata = { format: FORMAT, ...(scores.fingerprint !== undefined && { fingerprint: scores.fingerprint }), ...scores.provenance };
  await writeFileAtomically(path, encodeSafetensors(tensors, metadata));
}

/** Refuses scores of another checkpoint. Either side may be unknown: then only sizes can tell, and ranking checks those. */
export function checkScoredCheckpoint(scores: ScoreFile, fingerprint: string | undefined, path: string): void {
  if (scores.fingerprint === undefined || fingerprint === undefined || scores.fingerprint === fingerprint) return;
  throw new PruneError("BAD_SCORES", `${path} holds the scores of another checkpoint (${scores.fingerprint}, not ${fingerprint})`, {
    hint: "score this checkpoint, or name its own score file",
  });
}
