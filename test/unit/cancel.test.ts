import { getEventListeners } from "node:events";
import { expect, it, onTestFinished } from "vitest";
import { onAbort, unlessCancelled } from "../../src/cancel.js";

it("a signal that fires ends all that wait for it, of which Node takes none for a leak", async () => {
  const warnings: Error[] = [];
  const hear = (warning: Error): void => void warnings.push(warning);
  process.on("warning", hear);
  onTestFinished(() => void process.off("warning", hear));
  const controller = new AbortController();
  const waiting = Array.from({ length: 50 }, () => unlessCancelled(new Promise(() => {}), controller.signal));
  expect(await unlessCancelled(Promise.resolve(1), controller.signal)).toBe(1);
  expect(getEventListeners(controller.signal, "abort")).toHaveLength(1);
  controller.abort();
  for (const { status } of await Promise.allSettled(waiting)) expect(status).toBe("rejected");
  await new Promise(setImmediate);
  expect(warnings).toEqual([]);
});

it("what was undone is not called, and what comes late is called at once", () => {
  const controller = new AbortController();
  const calls: string[] = [];
  const note = (): void => void calls.push("twice");
  onAbort(controller.signal, () => calls.push("undone"))();
  onAbort(controller.signal, note)();
  onAbort(controller.signal, note);
  controller.abort();
  onAbort(controller.signal, () => calls.push("late"));
  expect(calls).toEqual(["twice", "late"]);
});
