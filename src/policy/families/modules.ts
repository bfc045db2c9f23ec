import type { TensorRow } from "./table.js";

/** A linear layer with a bias. */
export function linear(module: string, outputs: string, inputs: string): TensorRow[] {
  return [
    { name: `${module}.weight`, axes: [outputs, inputs] },
    { name: `${module}.bias`, axes: [outputs] },
  ];
}

/** A LayerNorm over the hidden channels, with a bias. */
export function layerNorm(module: string): TensorRow[] {
  return ["weight", "bias"].map((part) => ({ name: `${module}.${part}`, axes: ["hidden"] }));
}
