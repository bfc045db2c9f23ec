import { PruneError } from "../../errors.js";
import type { Architecture } from "../architecture.js";
import { KEY_VALUE, QUERY } from "../families/blocks.js";
import type { LayerSizes } from "../hyperparameters.js";
import { architectureRows, nameAt, type StoredTensor } from "../tensors.js";

/** The axes whose lengths tell the sizes of a layer. */
const TELLING = { ffn_hidden_size: "ffn", num_attention_heads: QUERY, num_query_groups: KEY_VALUE } as const;

/**
 * Reads the sizes of each layer from the shapes of its tensors, which are named as transformers' modules are. Whether all of a layer's tensors
 * agree is for whoever matches them to see.
 *
 * @throws PruneError BAD_TENSOR that names what is missing or has no legal size
 */
export function readLayerSizes(architecture: Architecture, tensors: readonly StoredTensor[]): LayerSizes[] {
  const rows = architectureRows(architecture);
  const shapes = new Map(tensors.map(({ name, shape }) => [name, shape]));
  const sizeIn = (layer: number, name: keyof LayerSizes): number => {
    const row = rows.find(({ perLayer, axisTexts }) => perLayer && axisTexts[0] === TELLING[name]);
    const tensor = nameAt(row?.name ?? "", { layer });
    const length = shapes.get(tensor)?.[0] ?? 0;
    const size = name === "ffn_hidden_size" ? length : length / architecture.hyperparameters.kv_channels;
    if (Number.isInteger(size) && size > 0) return size;
    throw new PruneError("BAD_TENSOR", `${tensor} has ${length} rows, of which no ${name} of layer ${layer} follows`, {
      hint: "the weights and architecture.json belong to different models; cut the parent again",
    });
  };
  return architecture.layers.map((_, layer) => ({
    ffn_hidden_size: sizeIn(layer, "ffn_hidden_size"),
    num_attention_heads: sizeIn(layer, "num_attention_heads"),
    num_query_groups: sizeIn(layer, "num_query_groups"),
  }));
}
