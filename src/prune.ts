import type { DummyInput, ForwardArgs } from "./data/args.js";
import { PruneError } from "./errors.js";
import type { Model } from "./model/model.js";
import { NetworkModel } from "./model/networkModel.js";
import { OpenedModel } from "./model/openedModel.js";
import { type ParsedMode, parseModes } from "./policy/modes/modes.js";
import type { PruneConfig } from "./pruning/config.js";
import { type FastnasResult, pruneFastnas } from "./pruning/fastnas.js";
import type { FastnasConfig } from "./pruning/fastnasConfig.js";
import { type GradnasResult, pruneGradnas } from "./pruning/gradnas.js";
import type { GradnasConfig } from "./pruning/gradnasConfig.js";
import { type PruneResult, pruneMinitron } from "./pruning/minitron.js";

/** A mode's name; a list of names or of [name, options] pairs; or an object of options by name. */
export type Mode<Name extends string = string> =
  | Name
  | readonly (Name | readonly [name: Name, options: Record<string, unknown>])[]
  | Readonly<{ [name in Name]?: Record<string, unknown> }>;

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
  config?: PruneConfig<Item>,
): Promise<PruneResult>;
/**
 * Prunes any network in place under one upper bound, as ModelOpt's FastNAS does: by what each size of each layer costs of the score.
 *
 * @param network - a loaded network, which is changed
 * @param mode - `"fastnas"`, alone or with options: ratios and divisors by the type and name of modules
 * @param constraints - `flops` or `params`, a number or a percentage of the whole network's
 * @param dummyInput - arguments of forward that the network is traced with: `flops` are for its batch size
 * @param config - how candidates are judged, data that normalisation layers are calibrated over, and where to keep what is found
 * @throws PruneError BAD_MODE, BAD_CONSTRAINTS or BAD_OPTION before anything is scored, where the bound cannot be met, too; PATH_DENIED or
 *   CHECKPOINT_MISMATCH of the checkpoint folder; then what tracing, calibration and scoring throw: the network is then as it was, but for
 *   the statistics of normalisation layers
 */
export async function prune<Item = ForwardArgs>(
  network: NetworkModel,
  mode: Mode<"fastnas">,
  constraints: Readonly<Record<string, unknown>>,
  dummyInput: DummyInput,
  config: FastnasConfig<Item>,
): Promise<FastnasResult>;
/**
 * Prunes the FFN channels and heads of each layer of a model in place, under one upper bound, as ModelOpt's gradnas does: by the squared
 * gradients of masks on them. Layers come out with sizes of their own, and the child is opened by `bridge.load`; with `{ uniform: true }` as
 * the mode's option they stay alike, as any config can say.
 *
 * @param model - an opened model, which is changed
 * @param mode - `"gradnas"`, alone or with options: `uniform`, and ratios and divisors by the name of modules
 * @param constraints - `flops` or `params`, a number or a percentage of the parent's
 * @param dummyInput - arguments of forward: `flops` are for its batch size and sequence length. None is needed for `params`
 * @param config - the loss, the data that it is taken over, and where to keep what is found
 * @throws PruneError BAD_MODE, BAD_CONSTRAINTS or BAD_OPTION before anything is run, where the bound cannot be met, too; PATH_DENIED or
 *   CHECKPOINT_MISMATCH of the checkpoint folder; BAD_DATA that names the batch, or what the loss function throws: the model is then as it was
 */
export async function prune<Item = ForwardArgs>(
  model: OpenedModel,
  mode: Mode<"gradnas">,
  constraints: Readonly<Record<string, unknown>>,
  dummyInput: DummyInput | null,
  config: GradnasConfig<Item>,
): Promise<GradnasResult>;
export async function prune(
  model: Model | NetworkModel,
  mode: Mode,
  constraints: Readonly<Record<string, unknown>>,
  dummyInput: DummyInput | null,
  config: object = {},
): Promise<PruneResult | FastnasResult | GradnasResult> {
  const { name, options } = onlyMode(parseModes(mode));
  if (name === "fastnas") {
    if (!(model instanceof NetworkModel)) throw wrongModel(name, "a network that bridge.load() gives");
    return pruneFastnas(model, options, constraints, dummyInput, config as FastnasConfig); // parsed there
  }
  if (name === "gradnas") {
    if (!(model instanceof OpenedModel)) throw wrongModel(name, "a model that bridge.open() gives");
    return pruneGradnas(model, options, constraints, dummyInput, config as GradnasConfig); // parsed there
  }
  if (model instanceof NetworkModel) throw wrongModel(name, "a decoder that bridge.open() gives");
  return pruneMinitron(model, options, constraints, dummyInput, config);
}

function onlyMode(modes: readonly ParsedMode[]): ParsedMode {
  const [first, ...others] = modes;
  if (first && others.length === 0) return first;
  throw new PruneError("BAD_MODE", "several modes in one call are not supported: call prune() once for each", {
    hint: 'give one mode, once: "mcore_gpt_minitron" for a decoder',
  });
}

function wrongModel(mode: string, takes: string): PruneError {
  return new PruneError("BAD_MODE", `mode ${mode} prunes ${takes}, and is given another kind of model`, {
    hint: 'decoders are pruned by "mcore_gpt_minitron", any other network by "fastnas"',
  });
}
