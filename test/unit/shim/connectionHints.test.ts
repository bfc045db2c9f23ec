import { describe, expect, it } from "vitest";
import { hintOnConnection, hintOnHangUp } from "../../../src/shim/connectionHints.js";

describe("hints", () => {
  it.each(["read ECONNRESET", "Connection dropped", "Last error: Failed to connect (2026-01-01)"])(
    "on %j speak of TLS only where it is the first connection",
    (details) => {
      expect(hintOnConnection(details)).toBe("see the shim's log");
      expect(hintOnHangUp(details)).toMatch(/give tls/);
    },
  );

  it.each(["connect ECONNREFUSED 127.0.0.1:1", "certificate has expired", "nothing that speaks gRPC answered"])(
    "on %j do not guess at a first connection",
    (details) => expect(hintOnHangUp(details)).toBeUndefined(),
  );
});
