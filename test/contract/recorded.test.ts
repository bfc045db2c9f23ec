// Messages that were recorded once: what either side sends today must be read by what the other sent then. The Python side has the same test.
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { FeedServiceService, OperationServiceService } from "../../src/gen/prunebridge/v1/operation.js";
import { SessionServiceService } from "../../src/gen/prunebridge/v1/session.js";

interface Recorded {
  readonly service: string;
  readonly method: string;
  readonly side: "request" | "response";
  readonly type: string;
  readonly base64: string;
}

interface Codec {
  requestSerialize(value: unknown): Buffer;
  requestDeserialize(bytes: Buffer): unknown;
  responseSerialize(value: unknown): Buffer;
  responseDeserialize(bytes: Buffer): unknown;
}

const SERVICES: Record<string, unknown> = {
  SessionService: SessionServiceService,
  OperationService: OperationServiceService,
  FeedService: FeedServiceService,
};
const RECORDED = join(dirname(fileURLToPath(import.meta.url)), "recorded.json");

it("reads every recorded message in full, and writes it byte for byte", async () => {
  const recorded = JSON.parse(await readFile(RECORDED, "utf8")) as Recorded[];
  expect(recorded.length).toBeGreaterThanOrEqual(12);
  for (const { service, method, side, type, base64 } of recorded) {
    const methods = SERVICES[service] as Record<string, Codec>;
    const codec = methods[method.charAt(0).toLowerCase() + method.slice(1)] as Codec;
    const bytes = Buffer.from(base64, "base64");
    const message = side === "request" ? codec.requestDeserialize(bytes) : codec.responseDeserialize(bytes);
    const written = side === "request" ? codec.requestSerialize(message) : codec.responseSerialize(message);
    expect(written.toString("base64"), type).toBe(base64);
  }
});
