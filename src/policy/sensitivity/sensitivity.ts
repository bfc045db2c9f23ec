/** One hyperparameter as sensitivity sees it: a name and its choices, ascending; the last is the original. */
export interface Choosable {
  readonly name: string;
  readonly choices: readonly number[];
}

/** A size for each hyperparameter, by name. */
export type Selection = Readonly<Record<string, number>>;

/** What each choice of a hyperparameter costs of the score, in the order of its choices. */
export type Degradations = readonly number[];

/** What was measured: kept after each hyperparameter, so that a search can go on from it. */
export interface Sensitivity {
  readonly originalScore: number;
  /** By name, as measured and not yet monotonic. */
  readonly degradations: Readonly<Record<string, Degradations>>;
}

/** How good a selection is: a finite number, higher = better. `what` names it for errors: the one size that is not the original. */
export type Judge = (selection: Selection, what: string) => Promise<number>;

/** Told as measuring goes on. */
export interface SensitivityListener {
  /** `what` is the network as the judge is told it. */
  readonly onScored?: ((what: string, score: number) => void) | undefined;
  /** Has to have stored what it is told when it returns. */
  readonly onMeasured?: ((sensitivity: Sensitivity) => Promise<void>) | undefined;
}

/** Below this a choice costs nothing, and larger ones are not scored. */
const NEGLIGIBLE = 1e-5;

/** Every hyperparameter at its original size. */
export function largest(hyperparameters: readonly Choosable[]): Selection {
  return selectBy(hyperparameters, ({ choices }) => choices.at(-1) ?? 0);
}

/** A selection from what is chosen of each hyperparameter. */
export function selectBy(hyperparameters: readonly Choosable[], choose: (hyperparameter: Choosable) => number): Selection {
  return Object.fromEntries(hyperparameters.map((hyperparameter) => [hyperparameter.name, choose(hyperparameter)]));
}

/**
 * Measures what each choice of each hyperparameter costs while all others are at their original size (FastNAS, as NVIDIA ModelOpt does it).
 *
 * @param known - what was measured before; a hyperparameter in it is not measured again
 * @throws what judging throws
 */
export async function measureSensitivity(
  hyperparameters: readonly Choosable[],
  judge: Judge,
  known: Sensitivity | undefined,
  { onScored, onMeasured }: SensitivityListener = {},
): Promise<Sensitivity> {
  const whole = largest(hyperparameters);
  const scoreOf = async (selection: Selection, what: string): Promise<number> => {
    const score = await judge(selection, what);
    onScored?.(what, score);
    return score;
  };
  let sensitivity = known ?? { originalScore: await scoreOf(whole, "the whole network"), degradations: {} };
  for (const hyperparameter of hyperparameters) {
    const { name } = hyperparameter;
    if (Object.hasOwn(sensitivity.degradations, name)) continue;
    const degradations = await measureOne(hyperparameter, async (size) => {
      return sensitivity.originalScore - (await scoreOf({ ...whole, [name]: size }, `${name} ${size}`));
    });
    sensitivity = { ...sensitivity, degradations: { ...sensitivity.degradations, [name]: degradations } };
    await onMeasured?.(sensitivity);
  }
  return sensitivity;
}

async function measureOne({ choices }: Choosable, measure: (size: number) => Promise<number>): Promise<number[]> {
  const degradations: number[] = [];
  for (const size of choices.slice(0, -1)) {
    const isFree = (degradations.at(-1) ?? Number.POSITIVE_INFINITY) < NEGLIGIBLE;
    degradations.push(isFree ? 0 : await measure(size));
  }
  return [...degradations, 0];
}

/** Degradations that never rise with the size: from large to small, the running maximum. */
export function monotonic(degradations: Degradations): number[] {
  let most = Number.NEGATIVE_INFINITY;
  return degradations
    .toReversed()
    .map((degradation) => {
      most = Math.max(most, degradation);
      return most;
    })
    .reverse();
}
