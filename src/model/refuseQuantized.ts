import { PruneError } from "../errors.js";
import type { Parent } from "../inspect.js";

/**
 * Refuses to run a quantised checkpoint: what would run is another network than the one that its family's table describes.
 *
 * @throws PruneError UNSUPPORTED_QUANTIZATION
 */
export function refuseQuantized({ checkpoint: { dir, configPath }, architecture: { quantization } }: Parent): void {
  if (!quantization) return;
  throw new PruneError("UNSUPPORTED_QUANTIZATION", `${dir} is quantised (${quantization.name}): it can be cut on storage, and not be run`, {
    hint: `score its unquantised parent, plan with these scores for ${configPath}, and slice ${dir} by that plan`,
  });
}
