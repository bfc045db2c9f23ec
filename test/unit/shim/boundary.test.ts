import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { Metadata, status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { ERROR_CODES, PruneError } from "../../../src/errors.js";
import { ErrorDetail, ErrorReason } from "../../../src/gen/prunebridge/v1/error.js";
import { LogTail } from "../../../src/shim/logTail.js";
import { channelOptions, TIMEOUTS } from "../../../src/shim/options.js";
import { fromCallError, isUnavailable } from "../../../src/shim/translate.js";

describe("channel options", () => {
  it("are all names that grpc-js reads: it ignores others in silence", async () => {
    const build = join(dirname(createRequire(import.meta.url).resolve("@grpc/grpc-js")));
    const sources = await Promise.all(
      ["channel-options.js", "transport.js", "internal-channel.js", "subchannel-pool.js", "http_proxy.js"].map((file) =>
        readFile(join(build, file), "utf8"),
      ),
    );
    for (const name of Object.keys(channelOptions(TIMEOUTS))) expect(sources.join(), name).toContain(`'${name}'`);
  });
});

function callError(code: status, details: string, detail?: ErrorDetail): Error {
  const metadata = new Metadata();
  if (detail) metadata.set("prunebridge-error-bin", Buffer.from(ErrorDetail.encode(detail).finish()));
  return Object.assign(new Error(details), { code, details, metadata });
}

describe("fromCallError", () => {
  it("knows every reason of the contract", () => {
    for (const reason of Object.values(ErrorReason).filter((value) => typeof value === "number")) {
      const error = fromCallError(callError(status.UNKNOWN, "x", { reason, message: "what", hint: "next" }));
      expect(Object.keys(ERROR_CODES)).toContain(error.code);
      expect(error.message).toBe(`[${error.code}] what\n  hint: next`);
    }
  });

  it.each([
    [status.CANCELLED, "CANCELLED"],
    [status.DEADLINE_EXCEEDED, "SHIM_STALLED"],
    [status.UNAVAILABLE, "SHIM_UNREACHABLE"],
    [status.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"],
    [status.UNIMPLEMENTED, "INTERNAL"],
  ])("gives gRPC's own status %i the code %s", (code, expected) => {
    expect(fromCallError(callError(code, "x")).code).toBe(expected);
  });

  it("leaves a PruneError as it is", () => {
    const error = new PruneError("BAD_DATA", "x");
    expect(fromCallError(error)).toBe(error);
  });
});

describe("isUnavailable", () => {
  it("is true of a broken connection and not of what a shim said", () => {
    expect(isUnavailable(callError(status.UNAVAILABLE, "x"))).toBe(true);
    expect(
      isUnavailable(callError(status.UNAVAILABLE, "x", { reason: ErrorReason.ERROR_REASON_SHUTTING_DOWN, message: "", hint: "" })),
    ).toBe(false);
    expect(isUnavailable(callError(status.INTERNAL, "x"))).toBe(false);
    expect(isUnavailable(new Error("x"))).toBe(false);
  });
});

describe("LogTail", () => {
  it("keeps the last lines, also one without end", async () => {
    const stream = Readable.from([Array.from({ length: 100 }, (_, i) => `line ${i}`).join("\n"), " and more"]);
    const tail = new LogTail(stream);
    await new Promise((resolve) => stream.once("end", resolve));
    const lines = tail.toString().split("\n");
    expect(lines).toHaveLength(41);
    expect(lines.at(-1)).toBe("line 99 and more");
    expect(lines[0]).toBe("line 59");
  });
});
