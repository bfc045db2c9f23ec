// Who may talk to a shim that listens, over which connection, and what becomes of those who may not.
import { mkdtemp, rm } from "node:fs/promises";
import { createServer as createHttp2Server } from "node:http2";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { type AttachOptions, Bridge, PruneError } from "../../src/index.js";
import { issue, type Listener, makeAuthority, type Pair, startListener, TOKENS, writeToken } from "../fixtures/listeners.js";

const NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1";
const SECONDS = 1_000;

let dir: string;
let authority: Pair;
let other: Pair;
const started: Listener[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  [authority, other] = await Promise.all([makeAuthority(dir, "authority"), makeAuthority(dir, "other")]);
});
afterAll(async () => {
  const logs = await Promise.all(started.map(({ stop }) => stop()));
  await rm(dir, { recursive: true, force: true });
  for (const token of Object.values(TOKENS)) expect(logs.join("\n")).not.toContain(token);
});

async function start(flags: readonly string[] = []): Promise<Listener> {
  const listener = await startListener(dir, flags);
  started.push(listener);
  return listener;
}

const serving = ({ cert, key }: Pair, ...flags: string[]): Promise<Listener> => start(["--tls-cert", cert, "--tls-key", key, ...flags]);

async function isAttached(address: string, options: AttachOptions): Promise<void> {
  await using bridge = await Bridge.attach(address, { token: TOKENS.change, ...options });
  expect(bridge.shim.protocol).toBe(1);
  expect(inspect(bridge, { depth: 9, showHidden: true })).not.toContain(TOKENS.change);
  expect(JSON.stringify(bridge)).not.toContain(TOKENS.change);
}

/** How attaching fails, which shows the token nowhere. */
async function refusal(address: string, options: AttachOptions): Promise<PruneError> {
  const given = { token: TOKENS.change, ...options };
  const error = await Bridge.attach(address, given).then(
    () => expect.fail("it was let in"),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(PruneError);
  const { stack } = error as PruneError;
  for (const shown of [stack, inspect(error, { depth: 9, showHidden: true }), JSON.stringify(error)]) {
    expect(shown).not.toContain(given.token ?? TOKENS.change);
  }
  return error as PruneError;
}

describe("TLS", () => {
  let server: Listener;
  beforeAll(async () => {
    server = await serving(await issue(dir, authority, "server", NAMES));
  });

  it.each(["localhost", "127.0.0.1"])("lets in who believes the shim's authority, at %s", async (host) => {
    await isAttached(`${host}:${server.port}`, { tls: { ca: authority.cert } });
  });

  it.each([
    ["another authority", () => ({ ca: other.cert }), /tls\.ca/],
    ["the authorities that Node.js knows", () => true as const, /tls\.ca/],
    ["another name", () => ({ ca: authority.cert, serverName: "elsewhere" }), /tls\.serverName/],
    ["no TLS at all", () => undefined, /give tls/],
  ])("keeps out who believes in %s", async (_whom, tls, hint) => {
    const error = await refusal(`localhost:${server.port}`, { tls: tls() });
    expect(error.code).toBe("SHIM_UNREACHABLE");
    expect(error.hint).toMatch(hint);
  });

  it("is not believed once its certificate has expired", async () => {
    const expired = await serving(await issue(dir, authority, "expired", NAMES, -1));
    const error = await refusal(`localhost:${expired.port}`, { tls: { ca: authority.cert } });
    expect(error).toMatchObject({
      code: "SHIM_UNREACHABLE",
      detail: expect.stringMatching(/expired/),
      hint: expect.stringMatching(/renew/),
    });
  });

  it("is not believed under another name, unless that is asked for", async () => {
    const elsewhere = await serving(await issue(dir, authority, "elsewhere", "subjectAltName=DNS:elsewhere"));
    const error = await refusal(`localhost:${elsewhere.port}`, { tls: { ca: authority.cert } });
    expect(error).toMatchObject({ code: "SHIM_UNREACHABLE", hint: expect.stringMatching(/serverName/) });
    await isAttached(`localhost:${elsewhere.port}`, { tls: { ca: authority.cert, serverName: "elsewhere" } });
  });

  it("asks clients for a certificate, where the shim was told to", async () => {
    const mutual = await serving(await issue(dir, authority, "mutual", NAMES), "--tls-client-ca", authority.cert);
    const [known, stranger] = await Promise.all([
      issue(dir, authority, "known", "extendedKeyUsage=clientAuth"),
      issue(dir, other, "stranger", "extendedKeyUsage=clientAuth"),
    ]);
    const ca = authority.cert;
    await isAttached(`localhost:${mutual.port}`, { tls: { ca, ...known } });
    for (const tls of [{ ca }, { ca, ...stranger }]) {
      const error = await refusal(`localhost:${mutual.port}`, { tls });
      expect(error).toMatchObject({ code: "SHIM_UNREACHABLE", hint: expect.stringMatching(/tls\.cert and tls\.key/) });
    }
  });

  it("is not spoken by a shim without it", async () => {
    const error = await refusal(`localhost:${(await start()).port}`, { tls: { ca: authority.cert } });
    expect(error).toMatchObject({ code: "SHIM_UNREACHABLE", hint: expect.stringMatching(/no TLS/) });
  });
});

describe("a token", () => {
  let server: Listener;
  beforeAll(async () => {
    server = await start();
  });

  it("may come from a file", async () => {
    await isAttached(server.address, { token: undefined, tokenFile: await writeToken(join(dir, "from-a-file"), TOKENS.change) });
  });

  it("that is wrong is refused", async () => {
    expect(await refusal(server.address, { token: "guessed-and-wrong" })).toMatchObject({ code: "UNAUTHENTICATED" });
  });

  it("that may read lets its holder know", async () => {
    await using reader = await Bridge.attach(server.address, { token: TOKENS.read });
    expect(reader.shim.rights).toEqual([1]);
    const job = {
      sourceDir: dir,
      jobDir: join(dir, "job"),
      indexSets: new Map(),
      shards: [],
      torchDist: undefined,
      flush: false,
      sha256: false,
    };
    await expect(reader.cutShards(job)).rejects.toMatchObject({ code: "RIGHT_DENIED", hint: expect.stringMatching(/--token-file/) });
  });
});

describe("a peer that is no shim", () => {
  async function serve(onSocket: (socket: Socket) => void): Promise<string> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket.on("error", () => {}));
      onSocket(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  it.each([
    ["says nothing", () => {}, "SHIM_UNREACHABLE", undefined],
    ["says nothing where TLS is due", () => {}, "SHIM_UNREACHABLE", true],
    [
      "says nothing after its settings",
      (socket: Socket) => socket.write(Buffer.from("000000040000000000", "hex")),
      "SHIM_STALLED",
      undefined,
    ],
    ["speaks HTTP/1.1", (socket: Socket) => socket.write("HTTP/1.1 400 Bad Request\r\n\r\n"), "SHIM_UNREACHABLE", undefined],
    ["sends garbage", (socket: Socket) => socket.write(Buffer.alloc(4_096, 0xff)), "SHIM_UNREACHABLE", undefined],
    ["hangs up", (socket: Socket) => socket.destroy(), "SHIM_UNREACHABLE", undefined],
  ] as const)("and %s is an error within seconds", async (_what, onSocket, code, tls) => {
    const began = performance.now();
    const timeouts = { connect: 1 * SECONDS, handshake: 4 * SECONDS };
    expect(await refusal(await serve(onSocket), { tls, timeouts })).toMatchObject({ code });
    expect(performance.now() - began).toBeLessThan(8 * SECONDS);
  });

  it("and speaks HTTP/2 of another kind is named", async () => {
    const server = createHttp2Server();
    server.on("stream", (stream) => {
      stream.respond({ ":status": 404, "content-type": "text/html" });
      stream.end("nothing here");
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void server.close());
    const error = await refusal(`127.0.0.1:${(server.address() as AddressInfo).port}`, {});
    expect(error).toMatchObject({ code: "SHIM_UNREACHABLE", detail: expect.stringMatching(/is no shim/) });
  });

  it("and is not there is an error at once", async () => {
    expect(await refusal("127.0.0.1:1", {})).toMatchObject({ code: "SHIM_UNREACHABLE", hint: expect.stringMatching(/running/) });
  });
});
