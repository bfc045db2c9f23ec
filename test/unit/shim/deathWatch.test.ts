import { expect, it } from "vitest";
import { PruneError } from "../../../src/errors.js";
import { DeathWatch } from "../../../src/shim/deathWatch.js";

const death = new PruneError("SHIM_DIED", "killed");
const never = new Promise<never>(() => {});

it("gives the outcome of work while the process lives", async () => {
  const watch = new DeathWatch(never);
  expect(await watch.guard(() => Promise.resolve(1))).toBe(1);
  await expect(watch.guard(() => Promise.reject(new PruneError("BAD_DATA", "x")))).rejects.toMatchObject({ code: "BAD_DATA" });
});

it("ends work that hangs when the process ends, and all that comes after", async () => {
  let die: (error: PruneError) => void = () => {};
  const watch = new DeathWatch(
    new Promise((resolve) => {
      die = resolve;
    }),
  );
  const hanging = watch.guard(() => never);
  die(death);
  await expect(hanging).rejects.toBe(death);
  await expect(watch.guard(() => never)).rejects.toBe(death);
});

it("waits a moment for the death that explains a broken connection", async () => {
  const watch = new DeathWatch(new Promise((resolve) => setTimeout(() => resolve(death), 100)));
  await expect(watch.guard(() => Promise.reject(new PruneError("SHIM_UNREACHABLE", "reset")))).rejects.toBe(death);
});
