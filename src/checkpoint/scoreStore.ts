import { rm } from "node:fs/promises";
import { join } from "node:path";
import { PruneError } from "../errors.js";
import { isFile } from "./folder.js";
import { checkScoredCheckpoint, readScoreFile, type ScoreFile, writeScoreFile } from "./scoreFile.js";

/** What is kept: importances of activations, or gradients of masks. */
export type ScoreKind = "scores" | "gradients";

/** What scores depend on beside the network: another value of any makes other scores. */
export type CalibrationOptions = Readonly<Record<string, string>>;

/** Where the scores of one network are kept: whole, or as far as calibration has come. */
export class ScoreStore {
  readonly path: string;
  readonly partialPath: string;
  readonly #fingerprint: string | undefined;
  readonly #options: CalibrationOptions;

  constructor(folder: string, fingerprint: string | undefined, options: CalibrationOptions, kind: ScoreKind = "scores") {
    this.path = join(folder, `${kind}.safetensors`);
    this.partialPath = join(folder, `${kind}.partial.safetensors`);
    this.#fingerprint = fingerprint;
    this.#options = options;
  }

  /** The scores that are there. Throws BAD_SCORES or CHECKPOINT_MISMATCH where they are of something else. */
  async read(): Promise<ScoreFile | undefined> {
    return this.#readChecked(this.path);
  }

  /** Scores over the first batches, where calibration was interrupted. Throws as {@link read} does. */
  async readPartial(): Promise<ScoreFile | undefined> {
    return this.#readChecked(this.partialPath);
  }

  /** Keeps finished scores; gives them as they are kept. */
  async write(scores: ScoreFile): Promise<ScoreFile> {
    const kept = this.#withOptions(scores);
    await writeScoreFile(this.path, kept);
    await this.dropPartial();
    return kept;
  }

  /** Removes scores over the first batches, once there are those over all. */
  async dropPartial(): Promise<void> {
    await rm(this.partialPath, { force: true });
  }

  /** Keeps scores over the first batches; gives them as they are kept. */
  async writePartial(scores: ScoreFile): Promise<ScoreFile> {
    const kept = this.#withOptions(scores);
    await writeScoreFile(this.partialPath, kept);
    return kept;
  }

  #withOptions(scores: ScoreFile): ScoreFile {
    return { ...scores, provenance: { ...scores.provenance, ...this.#options } };
  }

  async #readChecked(path: string): Promise<ScoreFile | undefined> {
    if (!(await isFile(path))) return undefined;
    const scores = await readScoreFile(path);
    checkScoredCheckpoint(scores, this.#fingerprint, path);
    for (const [name, value] of Object.entries(this.#options)) {
      const stored = scores.provenance[name];
      // Files that other tools wrote say less.
      if (stored === undefined || stored === value) continue;
      throw new PruneError("CHECKPOINT_MISMATCH", `${path} was measured with ${name} ${stored}, not ${value}`, {
        hint: "name another checkpoint folder, or remove this one to measure again",
      });
    }
    return scores;
  }
}
