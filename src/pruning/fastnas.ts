import type { NetworkHistoryEntry } from "../checkpoint/sensitivityState.js";
import type { DummyInput, ForwardArgs } from "../data/args.js";
import { toDummyBatch } from "../data/networkArgs.js";
import type { NetworkModel, PrunedNetwork } from "../model/networkModel.js";
import { formatProfile, formatSelection } from "../networkTables.js";
import {
  checkProfile,
  chooseNetwork,
  type NetworkSearch,
  type NetworkSpace,
  networkSpace,
  profileSpace,
  type SpaceProfile,
} from "../policy/modes/fastnas.js";
import { checkChoices, choiceRule, type NetworkOptions } from "../policy/modes/fastnasOptions.js";
import { parseNetworkConstraint } from "../policy/modes/networkConstraint.js";
import { networkChild } from "../policy/network/child.js";
import { pythonOf, tellerOf } from "./commonConfig.js";
import { type FastnasConfig, parseFastnasConfig } from "./fastnasConfig.js";
import { FastnasRun, type FastnasSeconds } from "./fastnasRun.js";
import { plainCopy, secondsSince } from "./run.js";
import { SensitivityMemory } from "./sensitivityMemory.js";

/** What a pruning by FastNAS gives: the network it was given, now pruned, and how that came about. */
export interface FastnasResult {
  /** The same handle as the network. */
  readonly subnet: NetworkModel;
  readonly stateDict: FastnasState;
}

/** The history and the statistics of a pruning: plain data, as JSON can hold it. */
export interface FastnasState {
  readonly mode: "fastnas";
  readonly constraints: Readonly<Record<string, unknown>>;
  /** The smallest, the middle and the original network of the space, and whether the constraint can be met. */
  readonly profile: SpaceProfile;
  /** The score of the whole network, and what each choice costs of it as measured, in the order of the choices. */
  readonly sensitivity: NetworkSearch["sensitivity"];
  /** What each hyperparameter's choices cost, monotonic: by name and size. */
  readonly sensitivityMap: NetworkSearch["sensitivityMap"];
  /** How many channels each hyperparameter keeps, and the most that one of these choices costs of the score. */
  readonly best: { readonly sizes: Readonly<Record<string, number>>; readonly degradation: number };
  readonly costs: PrunedNetwork["costs"];
  /** Batches that normalisation layers were calibrated over, and how many layers that were; undefined where there was no data. */
  readonly calibration: { readonly batches: number; readonly layers: number } | undefined;
  /** What every run on this checkpoint folder came to, this one last. */
  readonly history: readonly NetworkHistoryEntry[];
  /** Wall seconds. */
  readonly timings: FastnasSeconds & { readonly total: number };
}

/**
 * Prunes any network under one constraint as FastNAS does; see {@link prune}.
 *
 * @param options - of the mode
 */
export async function pruneFastnas<Item = ForwardArgs>(
  network: NetworkModel,
  options: NetworkOptions,
  constraints: Readonly<Record<string, unknown>>,
  dummyInput: DummyInput | null,
  config: FastnasConfig<Item>,
): Promise<FastnasResult> {
  const began = performance.now();
  const constraint = parseNetworkConstraint("fastnas", constraints);
  const checked = parseFastnasConfig(config);
  const dummy = toDummyBatch(dummyInput);
  network.checkPrunable();
  network.checkAllowed(pythonOf(checked));
  const memory = await SensitivityMemory.open(checked.checkpoint);

  const run = new FastnasRun(network, checked, memory);
  const facts = await run.trace(dummy);
  checkChoices(options, facts.groups);
  const space = networkSpace(facts, choiceRule(options));
  const profile = profileSpace(space, constraint);
  const say = tellerOf(checked.verbose);
  say?.(formatProfile(profile, space.hyperparameters));
  checkProfile(profile);
  const sensitivity = await run.measure(space);
  const found = run.bisecting(() => chooseNetwork(space, profile, sensitivity));
  const pruned = prunedBy(space, found);
  say?.(formatSelection(space.hyperparameters, pruned.sizes, pruned.costs));
  const best = { sizes: pruned.sizes, degradation: found.degradation };
  const asked = plainCopy(constraints);
  await memory.conclude({ constraints: asked, ...found.costs, ...best });
  await network.prune(pruned, checked);
  const stateDict: FastnasState = {
    mode: "fastnas",
    constraints: asked,
    profile,
    sensitivity,
    sensitivityMap: found.sensitivityMap,
    best,
    costs: pruned.costs,
    calibration: run.calibration,
    history: memory.history,
    timings: { ...run.seconds, total: secondsSince(began) },
  };
  return { subnet: network, stateDict };
}

function prunedBy({ facts, keptBy, costsOf }: NetworkSpace, { selection, costs }: NetworkSearch): PrunedNetwork {
  return {
    mode: "fastnas",
    sizes: { ...selection },
    child: networkChild(facts, keptBy(selection)),
    costs: { parent: costsOf({}), child: costs },
  };
}
