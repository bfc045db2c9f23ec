import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { LoopModel } from "../../../src/index.js";
import { CollectedModel, RunningLoop } from "../../../src/model/loop.js";
import { readArchitecture } from "../../../src/policy/architecture.js";
import type { Ask } from "../../../src/shim/feed.js";
import { bytesOf } from "../../../src/tensor.js";
import { TINY_LLAMA } from "../../fixtures/checkpoints.js";

const { hyperparameters } = readArchitecture(TINY_LLAMA);

/** Runs a loop, and draws what it runs. */
function start(loop: (model: LoopModel) => unknown): AsyncIterator<Ask> {
  return new RunningLoop(loop, (calls) => new CollectedModel(calls, hyperparameters)).asks[Symbol.asyncIterator]();
}

/** Batches of one sequence each, of the lengths given, that tell how many were drawn and whether that was the end. */
function sequences(lengths: readonly number[]): Iterable<number[][]> & { drawn: number; returned: boolean } {
  const source = {
    drawn: 0,
    returned: false,
    *[Symbol.iterator](): Generator<number[][]> {
      try {
        for (const length of lengths) {
          source.drawn += 1;
          yield [Array.from({ length }, (_, i) => i)];
        }
      } finally {
        source.returned = true;
      }
    },
  };
  return source;
}

async function next(asks: AsyncIterator<Ask>): Promise<Ask> {
  return (await asks.next()).value;
}

function answerLoss(ask: Ask, loss: number): void {
  ask.answer?.(new Map([["loss", { dtype: "F64", shape: [], data: bytesOf(Float64Array.of(loss)) }]]));
}

it("a forward that asks for nothing resolves once its batch was sent, of which the memory may then be used again", async () => {
  let resolved = false;
  const asks = start(async (model) => {
    await model.forward([1, 2]);
    resolved = true;
  });
  await next(asks);
  await sleep(5);
  expect(resolved).toBe(false);
  expect(await asks.next()).toEqual({ done: true, value: undefined });
  expect(resolved).toBe(true);
});

describe("the loss of a loop's model", () => {
  it("draws a batch only when the one before was sent, answered or not", async () => {
    const source = sequences(Array.from({ length: 3000 }, () => 4));
    const asks = start((model) => model.loss(source));
    for (let drawn = 1; drawn < 5; drawn++) {
      await next(asks);
      await sleep(2);
      expect(source.drawn).toBe(drawn);
    }
  });

  it("weighs batches by the tokens that are predicted", async () => {
    let loss: number | undefined;
    const asks = start(async (model) => {
      loss = await model.loss(sequences([2, 4, 5]));
    });
    const drawn = [await next(asks), await next(asks), await next(asks)];
    for (const [i, ask] of drawn.entries()) answerLoss(ask, [8, 4, 1][i] ?? 0);
    expect(await asks.next()).toEqual({ done: true, value: undefined });
    expect(loss).toBe((8 * 1 + 4 * 3 + 1 * 4) / 8);
  });
});

describe("a signal", () => {
  const cancelled = expect.objectContaining({ code: "CANCELLED" });

  it.each<[string, (model: LoopModel, signal: AbortSignal) => Promise<unknown>]>([
    ["forward", (model, signal) => model.forward([1, 2], { signal })],
    ["forward that asks", (model, signal) => model.forward([1, 2], { signal, returns: "loss" })],
    ["loss", (model, signal) => model.loss([[1, 2]], { signal })],
  ])("ends a %s that waits, and runs no batch of one that comes later", async (_call, run) => {
    const controller = new AbortController();
    const failures: unknown[] = [];
    const asks = start(async (model) => {
      const waiting = run(model, controller.signal);
      await sleep(2);
      controller.abort();
      await waiting.catch((error: unknown) => failures.push(error));
      await run(model, controller.signal).catch((error: unknown) => failures.push(error));
    });
    await sleep(20);
    expect(failures).toEqual([cancelled, cancelled]);
    await next(asks);
    expect(await asks.next()).toEqual({ done: true, value: undefined });
  });

  it("ends the drawing of a loss's batches", async () => {
    const source = sequences([4, 4, 4, 4, 4]);
    const controller = new AbortController();
    const asks = start(async (model) => {
      await model.loss(source, { signal: controller.signal }).catch(() => {});
      await model.forward([1, 2], { returns: "loss" });
    });
    await next(asks);
    await sleep(2);
    controller.abort();
    answerLoss(await next(asks), 1);
    expect(await asks.next()).toEqual({ done: true, value: undefined });
    expect(source).toMatchObject({ drawn: 2, returned: true });
  });
});
