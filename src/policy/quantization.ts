import { z } from "zod";
import { PruneError } from "../errors.js";
import type { FamilyTable } from "./families/table.js";

/** How the weights of a checkpoint are quantised, as far as cutting has to know it. */
export interface Quantization {
  /** The field of config.json that says it. */
  readonly key: string;
  /** For messages: the method, and what one scale stands for. */
  readonly name: string;
  readonly scales: Scales;
}

/**
 * What one scale of a weight [..., out, in] stands for: a block of both axes, an output channel, the whole matrix, or a block of inputs that
 * is stored beside the transposed weight (MXFP4). `ending` is how the name of a scale ends that stands for a block.
 */
export type Scales =
  | { readonly per: "block"; readonly sizes: readonly [number, number]; readonly ending: string }
  | { readonly per: "channel" }
  | { readonly per: "tensor" }
  | { readonly per: "mxfp4" };

/** What to do about a checkpoint that cannot be cut as it is stored. */
export const DEQUANTISE = "dequantise the checkpoint first, or prune its unquantised parent and quantise the child";

const KEYS = ["quantization_config", "compression_config"];

const size = z.number().int().positive();
const blockSizes = z.tuple([size, size]);
const fp8 = z.looseObject({
  weight_block_size: blockSizes.nullish(),
  fmt: z.literal("e4m3").optional(),
  expert_dtype: z.literal("fp8").optional(),
  kv_cache_scheme: z.null().optional(),
});
const compressedWeights = z.looseObject({
  num_bits: z.literal(8),
  type: z.literal("float"),
  symmetric: z.literal(true).optional(),
  strategy: z.enum(["tensor", "channel", "block"]),
  block_structure: z.union([blockSizes, z.string().regex(/^\d+x\d+$/)]).nullish(),
});
const compressed = z.looseObject({
  format: z.enum(["float-quantized", "naive-quantized"]),
  config_groups: z.record(z.string(), z.looseObject({ weights: compressedWeights, output_activations: z.null().optional() })),
  kv_cache_scheme: z.null().optional(),
  sparsity_config: z.union([z.strictObject({}), z.looseObject({ format: z.literal("dense") })]).nullish(),
  transform_config: z.strictObject({}).nullish(),
});

/**
 * Reads how a config says that its checkpoint is quantised; undefined where it is not.
 *
 * @throws PruneError UNSUPPORTED_QUANTIZATION for a method, or a variant of one, whose layout cannot be cut
 */
export function readQuantization(config: Readonly<Record<string, unknown>>, table: FamilyTable, where: string): Quantization | undefined {
  const key = KEYS.find((name) => config[name] !== undefined && config[name] !== null);
  if (key === undefined) return undefined;
  const stated = config[key];
  if (typeof stated !== "object" || stated === null) throw new PruneError("BAD_CONFIG", `${where}: ${key} must be an object`);
  const method = methodOf(stated);
  const variant = (parsed: z.ZodSafeParseError<unknown>): PruneError =>
    unsupported(`${where}: a variant of ${method} that cannot be cut: ${z.prettifyError(parsed.error).replaceAll("\n", "; ")}`);
  switch (method) {
    case "fp8": {
      const parsed = fp8.safeParse(stated);
      if (!parsed.success) throw variant(parsed);
      const sizes = parsed.data.weight_block_size;
      return describe(key, method, sizes ? { per: "block", sizes, ending: "_scale_inv" } : { per: "tensor" });
    }
    case "fbgemm_fp8":
      return describe(key, method, { per: "channel" });
    case "compressed-tensors": {
      const parsed = compressed.safeParse(stated);
      if (!parsed.success) throw variant(parsed);
      return describe(key, method, compressedScales(Object.values(parsed.data.config_groups), where));
    }
    case "mxfp4":
      if (table.mxfp4) return describe(key, method, { per: "mxfp4" });
  }
  throw unsupported(`${where}: the weights are quantised by ${method}, in a layout that cannot be cut`);
}

/** The refusal of a tensor that only quantised checkpoints have, in one that does not say that it is; undefined for any other tensor. */
export function refuseQuantizedTensor(name: string, stated: Quantization | undefined): PruneError | undefined {
  const method = Object.entries(TRACES).find(([, trace]) => trace.test(name))?.[0];
  if (method === undefined) return undefined;
  const found = stated ? `which ${stated.key}, ${stated.name}, does not account for` : "and config.json has no quantization_config";
  return unsupported(`${name} looks like a part of a weight quantised by ${method}, ${found}`);
}

const TRACES: Readonly<Record<string, RegExp>> = {
  bitsandbytes: /\.(SCB|weight_format|absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+)$/,
  "gptq or awq": /\.(qweight|qzeros|g_idx|scales)$/,
  aqlm: /\.(codes|codebooks)$/,
  hqq: /\.(W_q|meta)$/,
  quanto: /\.weight\._(data|scale|shift|zeropoint)$/,
  "compressed-tensors": /\.(weight_packed|weight_shape|weight_zero_point|weight_g_idx|weight_global_scale)$/,
  mxfp4: /_(blocks|scales)$/,
  fp8: /\.(\w+_scale_inv|weight_scale|input_scale|activation_scale|[kv]_scale)$/,
};

function methodOf(stated: object): string {
  const { quant_method: method, load_in_8bit: in8bit, load_in_4bit: in4bit } = stated as Record<string, unknown>;
  if (typeof method === "string") return method;
  return in8bit || in4bit ? "bitsandbytes" : "a method that it does not name";
}

function compressedScales(groups: readonly { readonly weights: z.infer<typeof compressedWeights> }[], where: string): Scales {
  const all = groups.map(({ weights: { strategy, block_structure: blocks } }) => JSON.stringify([strategy, blocks]));
  const [first] = groups;
  if (!first || new Set(all).size > 1) throw unsupported(`${where}: compressed-tensors with ${groups.length} groups of unlike weights`);
  const { strategy, block_structure: structure } = first.weights;
  if (strategy !== "block") return { per: strategy };
  const sizes = blockSizes.safeParse(typeof structure === "string" ? structure.split("x").map(Number) : structure);
  if (!sizes.success) throw unsupported(`${where}: compressed-tensors by blocks, whose block_structure is ${JSON.stringify(structure)}`);
  return { per: "block", sizes: sizes.data, ending: "_scale" };
}

function describe(key: string, method: string, scales: Scales): Quantization {
  const what = { block: "block", channel: "output channel", tensor: "matrix", mxfp4: "block of 32 inputs" }[scales.per];
  const size = scales.per === "block" ? ` of ${scales.sizes.join(" x ")}` : "";
  return { key, name: `${method} with one scale for each ${what}${size}`, scales };
}

function unsupported(detail: string): PruneError {
  return new PruneError("UNSUPPORTED_QUANTIZATION", detail, { hint: DEQUANTISE });
}
