import { describe, expect, it } from "vitest";
import { PruneError } from "../../../src/errors.js";
import { RestartWatch } from "../../../src/shim/restartWatch.js";

const broken = new PruneError("SHIM_UNREACHABLE", "reset");

describe("RestartWatch", () => {
  it("lets pass what succeeds, and failures that a restart does not explain", async () => {
    const watch = new RestartWatch("a", () => Promise.reject(new Error("nobody asks")));
    expect(await watch.guard(async () => 1)).toBe(1);
    await expect(watch.guard(() => Promise.reject(new PruneError("BAD_DATA", "x")))).rejects.toMatchObject({ code: "BAD_DATA" });
  });

  it("keeps the error where the shim is the same, or cannot be asked", async () => {
    await expect(new RestartWatch("a", async () => "a").guard(() => Promise.reject(broken))).rejects.toBe(broken);
    await expect(new RestartWatch("a", () => Promise.reject(broken)).guard(() => Promise.reject(broken))).rejects.toBe(broken);
  });

  it("tells of another boot id, with what failed as its cause", async () => {
    const restarted = new RestartWatch("a", async () => "b").guard(() => Promise.reject(broken));
    await expect(restarted).rejects.toMatchObject({ code: "SHIM_RESTARTED", cause: broken });
  });
});
