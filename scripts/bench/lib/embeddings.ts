import { asFloat32, type LossFunc, type NamedArgs, tensor } from "../../../src/index.js";

/** Token ids of sentences, padded to one length. */
export interface Sentences extends NamedArgs {
  readonly input_ids: number[][];
  readonly attention_mask: number[][];
}

/** Batches of so many sentences each, those of like length together. */
export function batchesOf(sentences: readonly (readonly number[])[], size: number): Sentences[] {
  const byLength = sentences.toSorted((a, b) => a.length - b.length);
  return Array.from({ length: Math.ceil(sentences.length / size) }, (_, batch) => {
    const own = byLength.slice(batch * size, (batch + 1) * size);
    const longest = own.at(-1)?.length ?? 0;
    const padded = (row: (ids: readonly number[]) => number[]): number[][] =>
      own.map((ids) => [...row(ids), ...new Array<number>(longest - ids.length).fill(0)]);
    return { input_ids: padded((ids) => [...ids]), attention_mask: padded((ids) => ids.map(() => 1)) };
  });
}

/** A sentence's embedding: the mean over its tokens of what the encoder gives, at unit length; and that length before. */
interface Embedding {
  readonly unit: Float64Array;
  readonly length: number;
}

/** The embeddings of a batch, [B, hidden] from `last_hidden_state` [B, S, hidden]. */
export function embed(hidden: Float32Array, { attention_mask: mask }: Sentences): Embedding[] {
  const [sentences, tokens] = [mask.length, mask[0]?.length ?? 0];
  const channels = hidden.length / sentences / tokens;
  return mask.map((row, sentence) => {
    const unit = new Float64Array(channels);
    const count = row.reduce((sum, one) => sum + one, 0);
    for (const [token, one] of row.entries()) {
      const begin = (sentence * tokens + token) * channels;
      if (one) for (let c = 0; c < channels; c++) unit[c] = (unit[c] ?? 0) + (hidden[begin + c] ?? 0) / count;
    }
    const length = Math.hypot(...unit);
    return { unit: unit.map((value) => value / length), length };
  });
}

/**
 * The loss of what an encoder is for: where its embeddings lie. Each is taken along a direction drawn from a normal distribution, so that the
 * squared gradient of a mask is, in the mean, the squared length of what it moves the embedding by. (The squared distance to the parent's own
 * embeddings has no gradient at the parent.)
 */
export function alongDirections(random: () => number): LossFunc<Sentences> {
  return (output, batch) => {
    const state = output["last_hidden_state"];
    if (!state) throw new Error("the encoder gives no last_hidden_state");
    const [, tokens = 0, channels = 0] = state.shape;
    const gradient = new Float32Array(asFloat32(state).length);
    let loss = 0;
    for (const [sentence, { unit, length }] of embed(asFloat32(state), batch).entries()) {
      const direction = unit.map(() => normal(random));
      const along = dot(direction, unit);
      const mask = batch.attention_mask[sentence] ?? [];
      const scale = length * mask.reduce((sum, one) => sum + one, 0);
      loss += along;
      for (const [token, one] of mask.entries()) {
        const begin = (sentence * tokens + token) * channels;
        if (one) for (let c = 0; c < channels; c++) gradient[begin + c] = ((direction[c] ?? 0) - along * (unit[c] ?? 0)) / scale;
      }
    }
    return { loss, gradient: { last_hidden_state: tensor(gradient, state.shape) } };
  };
}

/** How near embeddings are to others of the same sentences. */
export interface Nearness {
  /** The mean cosine of a sentence's two embeddings. */
  readonly cosine: number;
  /** Spearman's rank correlation of the similarities of all pairs of sentences. */
  readonly pairs: number;
}

export function nearness(found: readonly Embedding[], expected: readonly Embedding[]): Nearness {
  const cosines = found.map(({ unit }, i) => dot(unit, expected[i]?.unit ?? unit));
  return {
    cosine: cosines.reduce((sum, one) => sum + one, 0) / cosines.length,
    pairs: correlation(ranks(similarities(found)), ranks(similarities(expected))),
  };
}

function similarities(embeddings: readonly Embedding[]): Float64Array {
  return Float64Array.from(embeddings.flatMap(({ unit }, i) => embeddings.slice(i + 1).map((other) => dot(unit, other.unit))));
}

function ranks(values: Float64Array): Float64Array {
  const order = Array.from(values.keys()).sort((a, b) => (values[a] ?? 0) - (values[b] ?? 0));
  const placed = new Float64Array(values.length);
  for (const [rank, index] of order.entries()) placed[index] = rank;
  return placed;
}

function correlation(a: Float64Array, b: Float64Array): number {
  const mean = (a.length - 1) / 2; // of ranks
  const [x, y] = [a, b].map((all) => all.map((one) => one - mean)) as [Float64Array, Float64Array];
  return dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y));
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] ?? 0) * (b[i] ?? 0);
  return sum;
}

/** Box and Muller's. */
function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}
