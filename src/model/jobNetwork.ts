import { requireWeights } from "../checkpoint/folder.js";
import { parseConfig, patchConfigText } from "../checkpoint/json.js";
import { refuseForeign, ZERO_CENTERED } from "../checkpoint/megatron/modelConfig.js";
import { PruneError } from "../errors.js";
import { hashOf } from "../hash.js";
import { type Network, type Parent, readParent } from "../inspect.js";
import { type Architecture, readArchitecture } from "../policy/architecture.js";
import type { ShimInfo } from "../shim/session.js";

/** The model of a job, as its shim tells of it. */
export type JobModel = ShimInfo["attached"][number];

/** What errors call the config that a job tells. */
const CONFIG = "the config of the job's model";

/**
 * Reads what a job tells of its model.
 *
 * @param bootId - of the shim
 * @param checkpoint - the folder whose weights the job has, where it has them unchanged: then scores are of that checkpoint
 * @throws PruneError BAD_CONFIG or UNKNOWN_ARCHITECTURE; BAD_OPTION where the folder is of another network; as {@link readParent} does
 */
export async function readJobNetwork(model: JobModel, bootId: string, checkpoint: string | Parent | undefined): Promise<Network> {
  const config = parseConfig(model.configJson, CONFIG);
  refuseForeign(config, CONFIG, "a job of a GPTModel, dense or with experts, can be measured");
  const architecture = readArchitecture(config, CONFIG);
  return {
    checkpoint: { config, configPath: CONFIG, configText: model.configJson },
    architecture,
    matched: undefined,
    fingerprint: checkpoint === undefined ? fingerprintOf(model, bootId) : await fingerprintIn(checkpoint, architecture),
  };
}

/** Weights in memory cannot be read from here: what is known is which process has them, and how often it may have changed them. */
function fingerprintOf({ configJson, dtype, parameters, steps }: JobModel, bootId: string): string {
  return `job:${hashOf(JSON.stringify([configJson, dtype, parameters, bootId, steps]))}`;
}

/** Throws NOT_A_CHECKPOINT on a config alone: nothing would tell its scores from those of other weights. */
async function fingerprintIn(checkpoint: string | Parent, job: Architecture): Promise<string | undefined> {
  const parent = typeof checkpoint === "string" ? await readParent(checkpoint) : checkpoint;
  requireWeights(parent.checkpoint);
  checkSizes(parent, job);
  return parent.fingerprint;
}

/**
 * Reads a checkpoint folder of the same network as a job's, for its config and files.
 *
 * @throws PruneError BAD_OPTION where it is of another network, or quantised; as {@link readParent} does
 */
export async function readLike(path: string, job: Network): Promise<Parent> {
  const parent = await readParent(path);
  checkSizes(parent, job.architecture);
  const { table, quantization } = parent.architecture;
  if (quantization) {
    throw new PruneError("BAD_OPTION", `${parent.checkpoint.dir} is quantised (${quantization.name}), and the job's weights are not`, {
      hint: "name an unquantised checkpoint of the same network",
    });
  }
  if (!table.layouts.some(({ name }) => name === "megatron")) {
    throw new PruneError("BAD_OPTION", `${parent.checkpoint.dir} is ${table.family}, of which no layout of Megatron's is known`, {
      hint: "save the child in Megatron's layout, without `like`",
    });
  }
  return withNormsOf(job, parent);
}

/** How the job holds the weights of its norms, the job alone knows; a child in Megatron's layout has them so too, and has to say it. */
function withNormsOf(job: Network, { checkpoint, architecture, ...parent }: Parent): Parent {
  const zero_centered_norms = job.checkpoint.config[ZERO_CENTERED] === true;
  const { flags } = architecture;
  if (flags.zero_centered_norms === zero_centered_norms) return { checkpoint, architecture, ...parent };
  const stated = { [ZERO_CENTERED]: zero_centered_norms };
  return {
    ...parent,
    checkpoint: {
      ...checkpoint,
      config: { ...checkpoint.config, ...stated },
      configText: patchConfigText(checkpoint.configText, stated),
    },
    architecture: { ...architecture, flags: { ...flags, zero_centered_norms } },
  };
}

function checkSizes(parent: Parent, job: Architecture): void {
  const [theirs, ours] = [sizesOf(parent.architecture), sizesOf(job)];
  for (const [name, size] of Object.entries(theirs)) {
    const other = ours[name];
    if (other === undefined || other === size) continue;
    throw new PruneError("BAD_OPTION", `the job's model has ${name} ${other}, and ${parent.checkpoint.dir} has ${size}`, {
      hint: "name the checkpoint that the job was loaded from, or leave it out",
    });
  }
}

/** What both have under the same names. A job may count the padding of its vocabulary as part of it. */
function sizesOf({ hyperparameters, layers }: Architecture): Readonly<Record<string, number>> {
  const { vocab_size: _, ...sizes } = hyperparameters;
  return { ...sizes, layers: layers.length };
}
