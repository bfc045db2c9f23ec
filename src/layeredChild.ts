import { ARCHITECTURE_FILE, type ArchitectureFile, encodeArchitectureFile } from "./checkpoint/architectureFile.js";
import { CONFIG_FILE } from "./checkpoint/folder.js";
import type { ChildFiles } from "./checkpoint/megatron/childFiles.js";
import type { ChildLayout } from "./childLayout.js";
import { PruneError } from "./errors.js";
import type { Parent } from "./inspect.js";
import { type Architecture, withLayerSizes } from "./policy/architecture.js";
import { readLayerSizes } from "./policy/gradients/layerSizes.js";
import { changedModules } from "./policy/gradients/modules.js";
import type { LayerSizes } from "./policy/hyperparameters.js";
import type { StoredTensor } from "./policy/tensors.js";

/** What a child whose layers have sizes of their own has besides weights: an architecture file in the config's place. */
export function filesBesideLayers(
  { checkpoint, architecture }: Parent,
  layers: readonly LayerSizes[],
  { shards }: ChildLayout,
): ChildFiles {
  const { dir, config, configText } = checkpoint;
  const file: ArchitectureFile = {
    source: { transformers: classOf(config), configText },
    modules: modulesOf(architecture, layers),
    tensors: Object.fromEntries(shards.flatMap(({ tensors }) => tensors.map(({ name, shape }) => [name, shape]))),
  };
  return {
    carried: [{ from: dir, into: "", but: [CONFIG_FILE, ARCHITECTURE_FILE], pickled: false }],
    written: new Map([[ARCHITECTURE_FILE, encodeArchitectureFile(file)]]),
  };
}

/**
 * The architecture of a network whose layers have sizes of their own, as its files state it.
 *
 * @param whole - the architecture of its parent, by the config in the file
 * @throws PruneError BAD_TENSOR where tensors have other shapes than the file states, BAD_CONFIG where its modules do not follow from these
 */
export function layeredArchitecture(
  whole: Architecture,
  { modules, tensors }: ArchitectureFile,
  stored: readonly StoredTensor[],
  where: string,
): Architecture {
  const odd = stored.find(({ name, shape }) => String(tensors[name]) !== String(shape));
  if (odd) {
    throw new PruneError("BAD_TENSOR", `${odd.name} has shape [${odd.shape.join(", ")}]; ${where} states [${tensors[odd.name] ?? ""}]`, {
      hint: "the folder was changed after it was cut; cut the parent again",
    });
  }
  const layers = readLayerSizes(whole, stored);
  if (sorted(modules) !== sorted(modulesOf(whole, layers))) {
    throw new PruneError("BAD_CONFIG", `${where}: its modules do not follow from the shapes of its tensors`, {
      hint: "cut the parent again",
    });
  }
  return withLayerSizes(whole, layers);
}

function modulesOf(architecture: Architecture, layers: readonly LayerSizes[]): ArchitectureFile["modules"] {
  return Object.fromEntries(changedModules(architecture, layers).map(({ module, attributes }) => [module, { ...attributes }]));
}

function sorted(modules: ArchitectureFile["modules"]): string {
  const inOrder = <T>(record: Readonly<Record<string, T>>): [string, T][] => Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(inOrder(modules).map(([module, attributes]) => [module, inOrder(attributes)]));
}

/** The class of transformers that a config names, which its family's table knows. */
function classOf({ architectures }: Readonly<Record<string, unknown>>): string {
  return Array.isArray(architectures) ? String(architectures[0]) : "";
}
