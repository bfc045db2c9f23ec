import { EXPERTS_AS_AXIS, LAYERS_AS_AXIS, positions } from "./views.js";

/** Where a tensor of the model lies in a save: at a position along the outer axes of the stored tensor of the key. */
export interface SavePlace {
  readonly key: string;
  readonly index: readonly number[];
  /** The sizes of the outer axes: layers, experts. */
  readonly outerShape: readonly number[];
}

const LAYER = /(?<=(?:^|\.)decoder\.layers\.)(\d+)\./;
const EXPERT = /(?<=\.mlp\.experts\.)local_experts\.(\d+)\.(?=linear_fc)/;
const SHARD_OF_STATE = /^(.*\._extra_state)\/shard_([\d.]+)_([\d.]+)$/;

/**
 * Where tensors of a model lie in a save, by their names there: the inverse of {@link viewTensors}.
 *
 * @param layersAsAxis - whether layers are an axis of their tensors, as where they are all alike
 */
export function savePlaces(names: readonly string[], layersAsAxis: boolean): SavePlace[] {
  const axes = [...(layersAsAxis ? [{ number: LAYER, becomes: "" }] : []), { number: EXPERT, becomes: "experts." }];
  const places = names.map((name) => {
    const having = axes.filter(({ number }) => number.test(name));
    const index = having.map(({ number }) => Number(number.exec(name)?.[1]));
    return { key: having.reduce((key, { number, becomes }) => key.replace(number, becomes), name), index };
  });
  const sizes = new Map<string, number[]>();
  for (const { key, index } of places)
    sizes.set(
      key,
      index.map((at, axis) => Math.max(sizes.get(key)?.[axis] ?? 0, at + 1)),
    );
  return places.map((place) => ({ ...place, outerShape: sizes.get(place.key) ?? [] }));
}

/** What of a parent is in a child: the number of a layer there, if it is, and how many layers and experts there are. */
export interface ChildCounts {
  readonly layers: number;
  readonly experts: number;
  layerOf(parentLayer: number): number | undefined;
}

/** The keys of the states beside weights that a child's modules ask for, by those that the parent has. */
export function childStates(keys: readonly string[], { layers, experts, layerOf }: ChildCounts): string[] {
  const states = keys.flatMap((key) => {
    const [, base = "", , shape = ""] = SHARD_OF_STATE.exec(key) ?? [];
    const moved = moveLayer(base, layerOf);
    if (moved === undefined) return [];
    const counts = [...(LAYERS_AS_AXIS.test(base) ? [layers] : []), ...(EXPERTS_AS_AXIS.test(base) ? [experts] : [])];
    const sizes = shape.split(".").map((size, axis) => counts[axis] ?? Number(size));
    return positions(sizes).map((at) => `${moved}/shard_${at.join(".")}_${sizes.join(".")}`);
  });
  return [...new Set(states)];
}

/** A name with the number that its layer has in the child; undefined where the child has not that layer. */
function moveLayer(name: string, layerOf: ChildCounts["layerOf"]): string | undefined {
  const stated = LAYER.exec(name)?.[1];
  if (stated === undefined) return name;
  const layer = layerOf(Number(stated));
  return layer === undefined ? undefined : name.replace(LAYER, `${layer}.`);
}
