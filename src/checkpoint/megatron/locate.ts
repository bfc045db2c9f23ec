import { readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { PruneError } from "../../errors.js";
import { readJsonObject } from "../json.js";
import { readText } from "../regularFile.js";
import { METADATA_FILE } from "./distMetadata.js";

/** Where a Megatron checkpoint's weights lie, and what states its sizes. */
export interface MegatronFolder {
  /** The folder of the weights. */
  readonly dir: string;
  /** The names in it. */
  readonly names: ReadonlySet<string>;
  readonly config: MegatronConfigFile;
  /** What states them beside a Hugging Face config. */
  readonly beside?: MegatronConfigFile;
}

/** Which file states the sizes: a Hugging Face config, Megatron-Bridge's, NeMo's, or the arguments of Megatron-LM's training script. */
export interface MegatronConfigFile {
  readonly kind: "huggingface" | "bridge" | "nemo" | "arguments";
  readonly path: string;
}

export const TRACKER = "latest_checkpointed_iteration.txt";
const TRACKER_KIND = { code: "NOT_A_CHECKPOINT", mostBytes: 1024 } as const;
const BRIDGE_TRACKER = "latest_train_state.pt";
export const BACKEND_FILE = "metadata.json";
export const COMMON_FILE = "common.pt";
export const BRIDGE_CONFIG = "run_config.yaml";
export const NEMO_CONFIG = "context/model.yaml";

/** The section that states a model's sizes in the configs of Megatron-Bridge and NeMo 2. */
export const MODEL_SECTIONS = { [BRIDGE_CONFIG]: "model", [NEMO_CONFIG]: "config" } as const;

/**
 * Recognises a folder of Megatron-LM, Megatron-Bridge or NeMo 2 by what is in it: a checkpoint's root, whose tracker names the iteration, or
 * one iteration's folder. Undefined where nothing in it is Megatron's.
 *
 * @throws PruneError NOT_A_CHECKPOINT that says what is missing, or which format it is that is not read
 */
export async function findMegatronFolder(dir: string): Promise<MegatronFolder | undefined> {
  const names = new Set(await readdir(dir));
  if (names.has(TRACKER)) return openIteration(await followTracker(dir));
  if (names.has("weights") || names.has("context")) return openNemo(dir, names);
  if (isIteration(names)) return openIteration(dir);
  if (names.has(BRIDGE_CONFIG)) return { dir, names, config: { kind: "bridge", path: join(dir, BRIDGE_CONFIG) } };
  const iteration = [...names].find((name) => /^(?:iter_\d+|release)$/.test(name));
  if (iteration !== undefined || names.has(BRIDGE_TRACKER)) {
    throw bad(dir, `has no ${TRACKER}, which says the iteration that is whole`, `name an iteration's folder: ${iteration ?? "iter_..."}`);
  }
  refuseLegacy(dir, names);
  return undefined;
}

/** Whether a folder's weights are in Megatron's torch_dist format, and not in safetensors. */
export function isTorchDist(names: ReadonlySet<string>): boolean {
  return names.has(METADATA_FILE);
}

async function followTracker(root: string): Promise<string> {
  const tracker = join(root, TRACKER);
  const stated = (await readText(tracker, TRACKER_KIND)).trim();
  const name = stated === "release" ? stated : `iter_${stated.padStart(7, "0")}`;
  if (stated !== "release" && !/^\d{1,12}$/.test(stated)) {
    throw bad(tracker, `states ${JSON.stringify(stated.slice(0, 60))}, which is neither an iteration nor "release"`, "write it again");
  }
  const names = await readdir(root);
  if (names.includes(name)) return join(root, name);
  throw bad(
    tracker,
    `names ${name}, which is not there`,
    `name an iteration's folder itself; there ${listOf(names.filter((other) => other.startsWith("iter_")))}`,
  );
}

function listOf(names: readonly string[]): string {
  return names.length === 0 ? "is none" : `is ${[...names].sort().join(", ")}`;
}

function isIteration(names: ReadonlySet<string>): boolean {
  return [METADATA_FILE, BACKEND_FILE, COMMON_FILE].some((name) => names.has(name)) || [...names].some((name) => name.endsWith(".distcp"));
}

async function openIteration(dir: string): Promise<MegatronFolder> {
  const names = new Set(await readdir(dir));
  refuseLegacy(dir, names);
  await checkWhole(dir, names);
  if (!names.has("config.json")) return { dir, names, config: await findConfig(dir, names) };
  const beside = await findConfig(dir, names).catch(() => undefined);
  return { dir, names, config: { kind: "huggingface", path: join(dir, "config.json") }, ...(beside && { beside }) };
}

/** Which file of Megatron's or NeMo's states the sizes. */
async function findConfig(dir: string, names: ReadonlySet<string>): Promise<MegatronConfigFile> {
  if (names.has(BRIDGE_CONFIG)) return { kind: "bridge", path: join(dir, BRIDGE_CONFIG) };
  if (basename(dir) === "weights") return findNemoConfig(dirname(dir));
  if (names.has(COMMON_FILE)) return { kind: "arguments", path: join(dir, COMMON_FILE) };
  throw bad(
    dir,
    `has no ${COMMON_FILE}, nor ${BRIDGE_CONFIG}, and so nothing that states the model's sizes`,
    "copy it from where it was saved",
  );
}

async function checkWhole(dir: string, names: ReadonlySet<string>): Promise<void> {
  if (!names.has(METADATA_FILE)) {
    throw bad(
      dir,
      `has no ${METADATA_FILE}, which is written when all ranks have saved`,
      "its saving was not finished, or it was not copied whole",
    );
  }
  if (!names.has(BACKEND_FILE)) {
    throw bad(dir, `has no ${BACKEND_FILE}, which is written last`, "its saving was not finished, or it was not copied whole");
  }
  const path = join(dir, BACKEND_FILE);
  const { sharded_backend: backend, sharded_backend_version: version } = await readJsonObject(path, "NOT_A_CHECKPOINT");
  if (backend === "torch_dist" && version === 1) return;
  throw bad(
    path,
    `says that the weights are in ${JSON.stringify(backend)} version ${JSON.stringify(version)}; torch_dist version 1 is read`,
    RESAVE,
  );
}

async function openNemo(dir: string, names: ReadonlySet<string>): Promise<MegatronFolder> {
  if (!names.has("weights")) throw bad(dir, "has context/ but no weights/", "copy the whole checkpoint folder");
  if (!names.has("context"))
    throw bad(dir, "has weights/ but no context/, which states the model's sizes", "copy the whole checkpoint folder");
  return openIteration(join(dir, "weights"));
}

async function findNemoConfig(root: string): Promise<MegatronConfigFile> {
  const names = await readdir(join(root, "context")).catch((): string[] => []);
  if (names.includes("model.yaml")) return { kind: "nemo", path: join(root, NEMO_CONFIG) };
  const found = names.includes("io.json") ? "has context/io.json, which only NeMo reads, but" : "has weights/ but";
  throw bad(root, `${found} no ${NEMO_CONFIG}, which states the model's sizes`, "save it again with a NeMo that writes context/model.yaml");
}

const RESAVE = "load it with the Megatron that saved it and save it with --ckpt-format torch_dist";

function refuseLegacy(dir: string, names: ReadonlySet<string>): void {
  const legacy = [...names].find((name) => /^mp_rank_\d+/.test(name));
  if (legacy !== undefined) throw bad(dir, `holds ${legacy}: Megatron's older format, one pickled file for each rank, is not read`, RESAVE);
}

function bad(where: string, what: string, hint: string): PruneError {
  return new PruneError("NOT_A_CHECKPOINT", `${where} ${what}`, { hint });
}
