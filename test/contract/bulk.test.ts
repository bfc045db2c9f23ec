// Tensors to and from a shim over each kind of connection that it may be attached to by.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { type AttachOptions, Bridge, type Tensor } from "../../src/index.js";
import { CHUNK_BYTES } from "../../src/shim/options.js";
import { writeCheckpoint } from "../fixtures/checkpoints.js";
import { issue, makeAuthority, type Pair, startListener, TOKENS } from "../fixtures/listeners.js";

let root: string;
let parent: string;
let authority: Pair;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  parent = await writeCheckpoint(join(root, "parent"));
  authority = await makeAuthority(root, "authority");
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** Logits of a batch that take several chunks. */
async function logitsOver(address: string, options: AttachOptions): Promise<Tensor> {
  await using bridge = await Bridge.attach(address, { token: TOKENS.change, ...options });
  const model = await bridge.open(parent);
  const ids = Array.from({ length: 64 }, (_, row) => Array.from({ length: 128 }, (_, i) => (row + i) % 32));
  return await model.forward(ids, { returns: "logits" });
}

describe("logits", () => {
  let expected: Tensor;
  beforeAll(async () => {
    const listener = await startListener(root, [], `unix:${root}/s`);
    expected = await logitsOver(listener.address, {});
    await listener.stop();
    expect(expected.data.length).toBeGreaterThan(CHUNK_BYTES);
  });

  it.each<[string, string, readonly string[], () => Promise<AttachOptions>, string]>([
    ["TCP", "", [], async () => ({}), "127.0.0.1"],
    ["TLS", "DNS:localhost,IP:127.0.0.1", [], async () => ({ tls: { ca: authority.cert } }), "127.0.0.1"],
    ["TLS by another name", "DNS:elsewhere", [], async () => ({ tls: { ca: authority.cert, serverName: "elsewhere" } }), "localhost"],
    ["mutual TLS", "DNS:localhost", ["--tls-client-ca"], async () => ({ tls: { ca: authority.cert, ...(await client()) } }), "localhost"],
  ])("over %s are those over a unix socket", async (kind, names, mutual, options, host) => {
    const flags = mutual.flatMap((flag) => [flag, authority.cert]);
    if (names !== "") {
      const { cert, key } = await issue(root, authority, kind.replaceAll(" ", "-"), `subjectAltName=${names}`);
      flags.push("--tls-cert", cert, "--tls-key", key);
    }
    const listener = await startListener(root, flags);
    onTestFinished(() => void listener.stop());
    const { dtype, shape, data } = await logitsOver(`${host}:${listener.port}`, await options());
    expect({ dtype, shape }).toEqual({ dtype: expected.dtype, shape: expected.shape });
    expect(Buffer.compare(data, expected.data)).toBe(0);
  });

  const client = (): Promise<Pair> => issue(root, authority, "client", "extendedKeyUsage=clientAuth");
});
