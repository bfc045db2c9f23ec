import type { DummyInput, ForwardArgs } from "./data/args.js";
import { PruneError } from "./errors.js";
import type { Model } from "./model/model.js";
import { type ParsedMode, parseModes } from "./policy/modes/modes.js";
import type { PruneConfig } from "./pruning/config.js";
import { type PruneResult, pruneMinitron } from "./pruning/minitron.js";

/** A mode's name; a list of names or of [name, options] pairs; or an object of options by name. */
export type Mode =
  | string
  | readonly (string | readonly [name: string, options: Record<string, unknown>])[]
  | Readonly<Record<string, Record<string, unknown>>>;

/**
 * Prunes a model in place, as NVIDIA ModelOpt's `prune` does.
 *
 * @param model - an opened model, which is changed; or that of a job, which stays whole and is saved as if it were
 * @param mode - `"mcore_gpt_minitron"`, alone or with options
 * @param constraints - `{ export_config: {...} }`, sizes by Megatron's names; or upper bounds on `params`, `active_params`, `memory_mb` and
 *   `flops`, each a number or a percentage of the parent's, which start a search
 * @param dummyInput - arguments of forward: `flops` are for its batch size and sequence length
 * @param config - calibration data, how candidates are judged, and where to keep what is found
 * @throws PruneError BAD_MODE, BAD_CONSTRAINTS, BAD_EXPORT_CONFIG or BAD_OPTION before any work; PATH_DENIED where
 *   the checkpoint folder cannot be written, CHECKPOINT_MISMATCH or BAD_SCORES where it is of something else; then what calibration and
 *   scoring throw: the model is then as it was
 */
export async function prune<Item = ForwardArgs>(
  model: Model,
  mode: Mode,
  constraints: Readonly<Record<string, unknown>>,
  dummyInput: DummyInput | null,
  config: PruneConfig<Item> = {},
): Promise<PruneResult> {
  const { options } = onlyMode(parseModes(mode));
  return pruneMinitron(model, options, constraints, dummyInput, config);
}

function onlyMode(modes: readonly ParsedMode[]): ParsedMode {
  const [first, ...others] = modes;
  if (first && others.length === 0) return first;
  throw new PruneError("BAD_MODE", "a network of a mode's own family is pruned by one mode at a time", {
    hint: 'give "mcore_gpt_minitron" once',
  });
}
