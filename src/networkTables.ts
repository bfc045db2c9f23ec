import type { SpaceProfile } from "./policy/modes/fastnas.js";
import type { NetworkCosts } from "./policy/network/costs.js";
import type { Choosable } from "./policy/sensitivity/sensitivity.js";
import { formatTable } from "./tables.js";

const METRICS = ["flops", "params"] as const satisfies (keyof NetworkCosts)[];

/** What each hyperparameter may be cut to, what the smallest, the middle and the original network cost, and whether the bound can be met. */
export function formatProfile({ subnets, metric, most, satisfiable }: SpaceProfile, hyperparameters: readonly Choosable[]): string {
  const [min, , max] = subnets;
  const whole = max?.costs[metric] ?? 0;
  return [
    formatTable([["hyperparameter", "choices"], ...hyperparameters.map(({ name, choices }) => [name, choices.join(" ")])]),
    formatTable([
      ["metric", ...subnets.map(({ name }) => name), "max/min"],
      ...METRICS.map((name) => [name, ...subnets.map(({ costs }) => costs[name]), ratioOf(max?.costs[name], min?.costs[name])]),
    ]),
    `${metric} at most ${most.toLocaleString("en-US")} (${((100 * most) / whole).toFixed(1)}%): ${satisfiable ? "can be met" : "cannot be met"}`,
  ].join("\n\n");
}

/** What was chosen of each hyperparameter, and what it comes to. */
export function formatSelection(
  hyperparameters: readonly Choosable[],
  sizes: Readonly<Record<string, number>>,
  { parent, child }: { readonly parent: NetworkCosts; readonly child: NetworkCosts },
): string {
  const row = (name: string, whole = 0, kept = 0): (string | number)[] => [name, whole, kept, `${((100 * kept) / whole).toFixed(1)}%`];
  return formatTable([
    ["", "parent", "child", ""],
    ...hyperparameters.map(({ name, choices }) => row(name, choices.at(-1), sizes[name])),
    ...METRICS.map((name) => row(name, parent[name], child[name])),
  ]);
}

function ratioOf(max = 0, min = 0): string {
  return (max / min).toFixed(2);
}
