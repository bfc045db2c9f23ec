import { PruneError } from "./errors.js";
import { asBigInt64, asFloat32, bytesOf, type Tensor } from "./tensor.js";

/** What a model returned for a batch: every floating-point tensor of it in F32, by name; `logits`, or `last_hidden_state` without a head. */
export type Outputs = Readonly<Record<string, Tensor>>;

/** A loss, and its gradient by what the model returned. */
export interface LossAndGradient {
  readonly loss: number;
  /** F32, in the shape of the output: by the output's first tensor, or by each that is named. Of what is left out it is 0. */
  readonly gradient: Tensor | Outputs;
}

/** Computes the loss of one batch. `batch` is what the data loader gave. */
export type LossFunc<Item> = (output: Outputs, batch: Item) => LossAndGradient | Promise<LossAndGradient>;

/** How cross entropy is taken. */
export interface CrossEntropyOptions {
  /** Labels that are not to be predicted. Default: -100. */
  readonly ignoreIndex?: number;
  /** Has each position predict the label of the next one, as causal language models do. Default: false. */
  readonly shift?: boolean;
}

/**
 * Mean cross entropy of logits by labels, as torch.nn.functional.cross_entropy has it, and its gradient by the logits. Summed in float64.
 *
 * @param logits - F32 [..., classes]
 * @param labels - I64, in the shape of the logits but for the classes
 * @throws PruneError BAD_DATA for what is missing or does not fit, or where all labels are to be ignored
 */
export function crossEntropy(
  logits: Tensor | undefined,
  labels: Tensor | undefined,
  { ignoreIndex = -100, shift = false }: CrossEntropyOptions = {},
): { readonly loss: number; readonly gradient: Tensor } {
  if (logits?.dtype !== "F32") throw bad(`logits are ${shown(logits)} where F32 [..., classes] belongs`);
  const places = logits.shape.slice(0, -1);
  const classes = logits.shape.at(-1) ?? 0;
  if (labels?.dtype !== "I64" || labels.shape.join() !== places.join())
    throw bad(`labels are ${shown(labels)} where I64 [${places.join(", ")}] belongs`);
  const targets = Array.from(asBigInt64(labels), Number);
  const targetOf = shift ? nextOf(targets, places.at(-1) ?? 0) : (row: number) => targets[row];
  const predicted = [...targets.keys()].flatMap((row) => {
    const target = targetOf(row);
    return target === undefined || target === ignoreIndex ? [] : [{ row, target }];
  });
  if (predicted.length === 0) throw bad(`there is nothing to predict: all labels are ${ignoreIndex}, or sequences have one token`);

  const values = asFloat32(logits);
  const gradient = new Float32Array(values.length);
  let sum = 0;
  for (const { row, target } of predicted) {
    if (target < 0 || target >= classes) throw bad(`there is a label ${target}, and there are ${classes} classes`);
    const begin = row * classes;
    const slope = gradient.subarray(begin, begin + classes);
    sum += negativeLogLikelihood(values.subarray(begin, begin + classes), target, slope, predicted.length);
  }
  return { loss: sum / predicted.length, gradient: { dtype: "F32", shape: logits.shape, data: bytesOf(gradient) } };
}

/** Gives that of one prediction; fills in the slope of the mean over `count` of them. */
function negativeLogLikelihood(logits: Float32Array, target: number, slope: Float32Array, count: number): number {
  const highest = logits.reduce((high, value) => Math.max(high, value), Number.NEGATIVE_INFINITY);
  const total = logits.reduce((sum, value) => sum + Math.exp(value - highest), 0);
  for (const [index, value] of logits.entries()) slope[index] = Math.exp(value - highest) / total / count;
  const likelihood = Math.exp((logits[target] ?? Number.NaN) - highest) / total;
  slope[target] = (likelihood - 1) / count;
  return Math.log(total) + highest - (logits[target] ?? Number.NaN);
}

function nextOf(targets: readonly number[], length: number): (row: number) => number | undefined {
  return (row) => ((row + 1) % length === 0 ? undefined : targets[row + 1]);
}

function shown(tensor: Tensor | undefined): string {
  return tensor ? `${tensor.dtype} [${tensor.shape.join(", ")}]` : "missing";
}

function bad(message: string): PruneError {
  return new PruneError("BAD_DATA", `cross entropy: ${message}`);
}
