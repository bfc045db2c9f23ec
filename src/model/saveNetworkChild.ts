import { ARCHITECTURE_FILE, type ArchitectureFile, encodeArchitectureFile } from "../checkpoint/architectureFile.js";
import { CONFIG_FILE, SINGLE_FILE } from "../checkpoint/folder.js";
import { parseConfig, patchConfigText } from "../checkpoint/json.js";
import type { Manifest } from "../checkpoint/manifest.js";
import { checkTarget } from "../checkpoint/staging.js";
import { type ChildRecord, makeChild } from "../childFolder.js";
import { configPatch } from "../policy/network/configs.js";
import type { RunOptions } from "../progress.js";
import { checkConfig, saveNetwork } from "../shim/networkWork.js";
import type { ShimSession } from "../shim/session.js";
import { gatherFiles } from "../sideContent.js";
import type { PrunedNetwork } from "./networkModel.js";
import type { NetworkSource } from "./networkSource.js";

/** How a pruned network is written. */
export interface NetworkSaveOptions extends RunOptions {
  /** Whether the child is on the disk when it appears. Without, it survives a crash of the processes but not of the machine. Default: true. */
  readonly flush?: boolean;
  /** Puts a SHA-256 of the weights into the manifest, which takes reading them once more. Default: false. */
  readonly sha256?: boolean;
}

/** Writes a network that was cut where it stands into a folder, which appears whole or not at all. */
export async function saveNetworkChild(
  session: ShimSession,
  modelId: string,
  source: NetworkSource,
  pruned: PrunedNetwork,
  target: string,
  { flush = true, sha256 = false, ...options }: NetworkSaveOptions,
): Promise<Manifest> {
  await checkTarget(target, source.dir);
  const config = await configOfChild(session, modelId, source, pruned, options);
  const written: readonly [string, string] =
    config === undefined ? [ARCHITECTURE_FILE, encodeArchitectureFile(architectureOf(source, pruned))] : [CONFIG_FILE, config];
  const but = [ARCHITECTURE_FILE, CONFIG_FILE];
  const carried = source.dir === undefined ? [] : [{ from: source.dir, into: "", but, pickled: false }];
  return makeChild(target, {
    ...recordOfNetwork(source, pruned),
    files: await gatherFiles({ carried, written: new Map([written]) }),
    flush,
    resumes: false,
    signal: options.signal,
    cut: (jobDir) => saveNetwork(session, modelId, { jobDir, flush, sha256 }, options),
    // What another process saves is cut from weights of its own.
    findTheirs: async () => undefined,
  });
}

/** The config.json of the child, where transformers makes of it a network of the child's very tensors. */
async function configOfChild(
  session: ShimSession,
  modelId: string,
  { builtBy }: NetworkSource,
  { child }: PrunedNetwork,
  options: RunOptions,
): Promise<string | undefined> {
  if (builtBy.entrypoint !== undefined) return undefined;
  const patch = configPatch(parseConfig(builtBy.configText, CONFIG_FILE), child.layers);
  if (!patch) return undefined;
  const config = patchConfigText(builtBy.configText, patch);
  const difference = await checkConfig(session, modelId, config, options);
  return difference === "" ? config : undefined;
}

function architectureOf({ builtBy, modules }: NetworkSource, { child }: PrunedNetwork): ArchitectureFile {
  const merged = { ...modules };
  for (const { module, attributes } of child.modules) merged[module] = { ...merged[module], ...attributes };
  return { source: builtBy, modules: merged, tensors: Object.fromEntries(child.tensors.map(({ name, shape }) => [name, shape])) };
}

function recordOfNetwork({ path, fingerprint }: NetworkSource, { mode, sizes, costs }: PrunedNetwork): ChildRecord {
  return {
    made: { save: undefined, shards: [{ file: SINGLE_FILE, tensors: [] }] },
    own: new Map(),
    says: {
      pruned: { mode, sizes },
      parent: { path, fingerprint },
      params: { parent: costs.parent.params, child: costs.child.params },
    },
  };
}
