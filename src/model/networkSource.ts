import { join } from "node:path";
import {
  ARCHITECTURE_FILE,
  type ArchitectureFile,
  type ArchitectureSource,
  parseArchitectureFile,
} from "../checkpoint/architectureFile.js";
import { fingerprint } from "../checkpoint/fingerprint.js";
import { CONFIG_FILE, isFile, readWeightedCheckpoint, SINGLE_FILE } from "../checkpoint/folder.js";
import { readDocument } from "../checkpoint/json.js";
import { LIVE_PARENT } from "../checkpoint/manifest.js";
import { readHeader } from "../checkpoint/safetensors.js";
import { PruneError } from "../errors.js";
import { type PythonRef, python } from "../pythonRef.js";
import type { NetworkOrigin } from "../shim/networkWork.js";
import type { CheckedLoad } from "./loadOptions.js";

/** Where a network is loaded from, as far as that is known before it is. */
export interface NetworkSource {
  /** What the shim is told. */
  readonly origin: NetworkOrigin;
  /** How the whole network is built, which was it before any pruning. */
  readonly builtBy: ArchitectureSource;
  /** The sizes of modules that an earlier pruning changed. */
  readonly modules: ArchitectureFile["modules"];
  /** The function that builds it, where one does. */
  readonly entrypoint: PythonRef | undefined;
  /** Its folder, whose other files a child gets. */
  readonly dir: string | undefined;
  /** What a manifest calls the parent: the folder, or the file of its weights. */
  readonly path: string;
  /** Tells it from other networks: weights in memory alone are not seen. */
  readonly fingerprint: string;
}

/**
 * Reads what lies on storage of a network: configs and headers.
 *
 * @throws PruneError PATH_NOT_FOUND, NOT_A_CHECKPOINT, BAD_CONFIG, BAD_INDEX or BAD_SAFETENSORS
 */
export function readNetworkSource(load: CheckedLoad): Promise<NetworkSource> {
  return load.kind === "built" ? readBuilt(load) : readFolder(load.dir);
}

async function readBuilt({ entrypoint, kwargs, weights }: Extract<CheckedLoad, { kind: "built" }>): Promise<NetworkSource> {
  const kwargsJson = JSON.stringify(kwargs);
  const headers = weights === undefined ? [] : [await readHeader(weights)];
  return {
    origin: { kind: "built", entrypoint: entrypoint.name, kwargsJson, weightsPath: weights ?? "" },
    builtBy: { entrypoint: entrypoint.name, kwargs },
    modules: {},
    entrypoint,
    dir: undefined,
    path: weights ?? LIVE_PARENT,
    fingerprint: await fingerprint({ dir: "", configText: `${entrypoint.name} ${kwargsJson}`, headers, torchDist: undefined }),
  };
}

async function readFolder(dir: string): Promise<NetworkSource> {
  if (!(await isFile(join(dir, ARCHITECTURE_FILE)))) return readCheckpointFolder(dir);
  if (!(await isFile(join(dir, CONFIG_FILE)))) return readPrunedFolder(dir);
  throw new PruneError("BAD_CONFIG", `${dir} has both ${ARCHITECTURE_FILE} and ${CONFIG_FILE}, which say different things of its weights`, {
    hint: "remove the one that is not the weights' own",
  });
}

async function readCheckpointFolder(dir: string): Promise<NetworkSource> {
  const checkpoint = await readWeightedCheckpoint(dir);
  const { architectures } = checkpoint.config;
  const [transformers] = Array.isArray(architectures) ? (architectures as unknown[]) : [];
  if (typeof transformers !== "string") {
    throw new PruneError("BAD_CONFIG", `${checkpoint.configPath} names no class in \`architectures\``, {
      hint: "ResNetForImageClassification for one: save it again with save_pretrained()",
    });
  }
  return {
    origin: { kind: "checkpoint", dir },
    builtBy: { transformers, configText: checkpoint.configText },
    modules: {},
    entrypoint: undefined,
    dir,
    path: dir,
    fingerprint: await fingerprint(checkpoint),
  };
}

async function readPrunedFolder(dir: string): Promise<NetworkSource> {
  const path = join(dir, ARCHITECTURE_FILE);
  const configText = await readDocument(path, "BAD_CONFIG");
  const { source, modules } = parseArchitectureFile(configText, path);
  const headers = [await readHeader(join(dir, SINGLE_FILE))];
  return {
    origin: { kind: "pruned", dir },
    builtBy: source,
    modules,
    entrypoint: source.entrypoint === undefined ? undefined : python(source.entrypoint),
    dir,
    path: dir,
    fingerprint: await fingerprint({ dir, configText, headers, torchDist: undefined }),
  };
}
