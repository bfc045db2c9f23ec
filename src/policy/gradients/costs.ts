import type { Architecture } from "../architecture.js";
import { dimensionSizes, type LayerSizes } from "../hyperparameters.js";
import type { NetworkCosts } from "../network/costs.js";
import { costPolynomials, layersOf, type Workload } from "../search/metrics.js";
import { evaluate, type Polynomial } from "../search/polynomial.js";

/** Counts a network by the sizes of its layers. */
export type LayerCosts = (layers: readonly LayerSizes[]) => NetworkCosts;

/**
 * Makes a count of networks whose layers may each have sizes of their own: what is outside of the layers, and what each of these adds to it.
 * The closed forms are those of searches, which are linear in the layers.
 */
export function layerCosts(architecture: Architecture, workload: Workload): LayerCosts {
  const { params, flops } = costPolynomials(architecture, workload);
  const [paramsOf, flopsOf] = [params, flops].map((polynomial) => countBy(architecture, polynomial)) as [Count, Count];
  return (layers) => ({ params: paramsOf(layers), flops: flopsOf(layers) });
}

type Count = (layers: readonly LayerSizes[]) => number;

function countBy({ hyperparameters, layers: kinds }: Architecture, polynomial: Polynomial): Count {
  const countAt = (sizes: Partial<LayerSizes>, layers: Readonly<Record<string, number>>): number =>
    evaluate(polynomial, { ...dimensionSizes({ ...hyperparameters, ...sizes }), ...none, ...layers });
  const none = Object.fromEntries(kinds.map((kind) => [layersOf(kind), 0]));
  const outside = countAt({}, {});
  const known = new Map<string, number>();
  const within = (sizes: LayerSizes, kind: string): number => {
    const key = `${kind} ${sizes.ffn_hidden_size} ${sizes.num_attention_heads} ${sizes.num_query_groups}`;
    const found = known.get(key) ?? countAt(sizes, { [layersOf(kind)]: 1 }) - outside;
    known.set(key, found);
    return found;
  };
  return (layers) => layers.reduce((sum, sizes, layer) => sum + within(sizes, kinds[layer] ?? ""), outside);
}
