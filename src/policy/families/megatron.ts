import type { LayerKind, LayerList, Layout, TensorRow } from "./table.js";

/** Tensor parallelism wants a vocabulary that divides: rows that no token has lie below. */
export const PADDED_VOCABULARY = "vocab + vocab_padding";

/**
 * What Megatron-Core's configs say of single layers, in the words of its TransformerConfig: a child that has fewer must not count anew which of
 * them have experts, a window or no rotary embedding. They may stand beside the config of any family.
 */
export const MEGATRON_LISTS: readonly LayerList[] = [
  { key: "moe_layer_freq", frequency: { values: [0, 1], at: "first" } },
  { key: "window_attn_skip_freq", frequency: { values: [1, 0], at: "last" } },
  { key: "no_rope_freq", frequency: { values: [0, 1], at: "last" } },
];

const BY_GROUP = "group * ";

/**
 * How names of the local layer spec, which the tables use, read elsewhere: norms that the Transformer Engine spec fuses with the projection
 * behind them, and experts that are computed as one (TEGroupedMLP).
 */
const OTHER_SPELLINGS: readonly (readonly [RegExp, string])[] = [
  [/\.input_layernorm\.(weight|bias)$/, ".self_attention.linear_qkv.layer_norm_$1"],
  [/\.pre_mlp_layernorm\.(weight|bias)$/, ".mlp.linear_fc1.layer_norm_$1"],
  [/\.local_experts\.\{expert\}\.(linear_fc[12])\.(weight|bias)$/, ".$1.$2{expert}"],
];

/** The other names that a tensor of the local spec has. */
export function otherSpellings(name: string): string[] {
  return OTHER_SPELLINGS.map(([local, other]) => name.replace(local, other)).filter((spelling) => spelling !== name);
}

/**
 * Megatron-Core's layout, made from where each row of another layout says that Megatron-Core has it. Rows of one place are joined along their
 * first axis: within each query group where they have groups, else one below the other.
 */
export function megatronLayout({ tensors }: Layout): Layout {
  const placed = tensors.flatMap(placesOf);
  const places = new Map<string, TensorRow[]>();
  for (const [place, row] of placed) places.set(place, [...(places.get(place) ?? []), row]);
  const placeOf = new Map(placed.map(([place, { name }]) => [name, place]));
  return { name: "megatron", tensors: [...places].flatMap(([name, rows]) => joinVariants(name, rows, placeOf)) };
}

function placesOf(row: TensorRow): [string, TensorRow][] {
  if (row.megatron === undefined) return [];
  if (typeof row.megatron === "string") return [[row.megatron, row]];
  return Object.entries(row.megatron).map(([kind, place]) => [place, { ...row, on: [kind as LayerKind] }]); // the record's own keys
}

/** Rows of one name exist under different switches and are not parts of each other. */
function joinVariants(name: string, rows: readonly TensorRow[], placeOf: ReadonlyMap<string, string>): TensorRow[] {
  const isOne = new Set(rows.map((row) => row.name)).size === 1;
  return (isOne ? rows.map((row) => [row]) : [rows]).flatMap((parts) => joinRows(name, parts, placeOf));
}

function joinRows(name: string, parts: readonly TensorRow[], placeOf: ReadonlyMap<string, string>): TensorRow[] {
  const [first] = parts;
  if (!first) return [];
  const { megatron: _, aliases: __, tiedTo, ...shared } = first;
  const [, ...inner] = first.axes;
  const aliases = otherSpellings(name);
  const tiedPlace = tiedTo === undefined ? undefined : placeOf.get(tiedTo);
  return [
    {
      ...shared,
      name,
      axes: [joinAxes(parts.map(({ axes }) => axes[0] ?? "")), ...inner],
      of: parts.map((part) => part.name),
      ...(aliases.length > 0 && { aliases }),
      ...(tiedPlace !== undefined && { tiedTo: tiedPlace }),
    },
  ];
}

function joinAxes(axes: readonly string[]): string {
  if (axes.length === 1) return axes[0] === "vocab" ? PADDED_VOCABULARY : (axes[0] ?? "");
  if (!axes.every((axis) => axis.startsWith(BY_GROUP))) return axes.join(" + ");
  return `${BY_GROUP}(${axes.map((axis) => axis.slice(BY_GROUP.length)).join(" + ")})`;
}
