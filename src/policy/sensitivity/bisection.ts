import { type Choosable, monotonic, type Selection, type Sensitivity, selectBy } from "./sensitivity.js";

const INTERVAL = 1e-5;

/**
 * Finds the least degradation that every hyperparameter may have for a constraint to be met, by bisection to 1e-5 or to neighbouring doubles,
 * and the smallest choices within it.
 *
 * @param isMet - whether a selection meets the constraint; met by the smallest choices, or nothing is found
 */
export function bisect(
  hyperparameters: readonly Choosable[],
  { degradations }: Pick<Sensitivity, "degradations">,
  isMet: (selection: Selection) => boolean,
): Selection | undefined {
  const falling = new Map(hyperparameters.map(({ name }) => [name, monotonic(degradations[name] ?? [])]));
  const smallestWithin = (threshold: number): Selection =>
    selectBy(hyperparameters, ({ name, choices }) => {
      const first = falling.get(name)?.findIndex((degradation) => degradation <= threshold) ?? -1;
      return choices.at(first) ?? 0;
    });
  const values = [...falling.values()].flat();
  let [low, high] = [values.reduce((a, b) => Math.min(a, b), 0), values.reduce((a, b) => Math.max(a, b), 0)];
  let found = smallestWithin(high);
  if (!isMet(found)) return undefined;
  while (high - low >= INTERVAL) {
    const middle = low / 2 + high / 2;
    if (middle <= low || middle >= high) break;
    const selection = smallestWithin(middle);
    if (isMet(selection)) [high, found] = [middle, selection];
    else low = middle;
  }
  return found;
}
