import { PruneError } from "../errors.js";
import { DEQUANTISE } from "./quantization.js";

const LAYER = /(?<=(?:^|\.)(?:layers|layer|h)\.)\d+(?=\.|$)/;
const EXPERT = /\.experts\.\d+(?:\.|$)/;
const PATTERN_OF_LAYER = /^re:.*layers\W*\d/;

/**
 * A config's quantisation with the module names in its lists (what is left unquantised, for one) as they are in the child: those of dropped
 * layers go, those behind are renumbered.
 *
 * @param keptLayers - the parent's layers that stay, in order
 * @param dropped - of what some go
 * @throws PruneError UNSUPPORTED_QUANTIZATION where a list picks layers by a pattern, or single experts of which some go
 */
export function renumberModules(stated: unknown, keptLayers: readonly number[], dropped: readonly ("layers" | "experts")[]): unknown {
  const positions = new Map(keptLayers.map((layer, position) => [String(layer), String(position)]));
  const rename = (name: string): string[] => {
    if (dropped.includes("layers") && PATTERN_OF_LAYER.test(name))
      throw unclear(`picks layers by the pattern ${JSON.stringify(name)}`, "layers");
    if (dropped.includes("experts") && EXPERT.test(name)) throw unclear(`names the single expert ${name}`, "experts");
    const layer = LAYER.exec(name)?.[0];
    if (layer === undefined) return [name];
    const position = positions.get(layer);
    return position === undefined ? [] : [name.replace(LAYER, position)];
  };
  const walk = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.flatMap((item) => (typeof item === "string" ? rename(item) : [walk(item)]));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, walk(inner)]));
  };
  return walk(stated);
}

function unclear(what: string, dropped: string): PruneError {
  return new PruneError(
    "UNSUPPORTED_QUANTIZATION",
    `config.json's quantisation ${what}, which would mean others once ${dropped} are dropped`,
    {
      hint: `spell the list out for each layer; or ${DEQUANTISE}`,
    },
  );
}
