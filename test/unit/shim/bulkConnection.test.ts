// Calls over real connections: to a server of grpc-js, to one of HTTP/2 that is none of gRPC, and to what is no server at all.
import { readFile } from "node:fs/promises";
import { createServer as createHttp2Server, createSecureServer, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { Metadata, Server, ServerCredentials, type ServerDuplexStream, status } from "@grpc/grpc-js";
import fc from "fast-check";
import { describe, expect, it, onTestFinished } from "vitest";
import { BulkConnection } from "../../../src/shim/bulkConnection.js";
import { parseEndpoint, socketEndpoint } from "../../../src/shim/endpoint.js";
import { FRAME, frameHeader } from "../../../src/shim/frames.js";
import { CHUNK_BYTES, MAX_MESSAGE_BYTES, TIMEOUTS, type Timeouts } from "../../../src/shim/options.js";
import { Token } from "../../../src/shim/token.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";
import { FlakyProxy } from "../../fixtures/flakyProxy.js";
import { issue, makeAuthority } from "../../fixtures/listeners.js";

const PATH = "/test.Test/Talk";
const token = new Token("a-token-for-the-tests", "token");

type Talk = (call: ServerDuplexStream<Buffer, Buffer>) => void;

const echo: Talk = (call) => {
  call.on("data", (message: Buffer) => call.write(message));
  call.on("end", () => call.end());
};

/** Serves one method until the test ends; gives the address. */
async function serve(talk: Talk, options: object = {}): Promise<string> {
  const same = (bytes: Buffer): Buffer => bytes;
  const codec = { requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same };
  const server = new Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1, ...options });
  server.addService({ talk: { path: PATH, requestStream: true, responseStream: true, ...codec } }, { talk });
  const path = join(await temporaryFolder(), "s");
  await new Promise((resolve) => server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), resolve));
  onTestFinished(() => server.forceShutdown());
  return path;
}

function connection(path: string, timeouts: Partial<Timeouts> = {}): BulkConnection {
  const bulk = new BulkConnection(socketEndpoint(path, token), { ...TIMEOUTS, ...timeouts });
  onTestFinished(() => bulk.close());
  return bulk;
}

/** Sends messages in one call; gives what comes back. */
async function talk(bulk: BulkConnection, messages: readonly (readonly Uint8Array[])[]): Promise<Buffer[]> {
  const received: Buffer[] = [];
  const call = bulk.open({ path: PATH, onMessage: (message) => received.push(Buffer.from(message)) });
  for (const parts of messages) void call.write(parts);
  call.end();
  await call.done;
  return received;
}

async function failure(bulk: BulkConnection, messages: readonly (readonly Uint8Array[])[] = [[Buffer.from("x")]]): Promise<unknown> {
  return talk(bulk, messages).then(
    () => "it succeeded",
    (error: unknown) => error,
  );
}

describe("a call", () => {
  it("brings messages there and back, whatever their sizes and parts", async () => {
    const bulk = connection(await serve(echo));
    const size = fc.oneof(fc.nat(50), fc.nat(100_000), fc.constantFrom(16_379, 65_530, CHUNK_BYTES, 3 * CHUNK_BYTES + 1));
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(size, { maxLength: 3 }), { maxLength: 6 }), async (sizes) => {
        const sent = sizes.map((parts, i) => parts.map((bytes, j) => Buffer.alloc(bytes, 7 * i + j + 1)));
        const back = await talk(bulk, sent);
        expect(back.length).toBe(sent.length);
        for (const [i, parts] of sent.entries()) expect(Buffer.compare(back[i] ?? Buffer.of(), Buffer.concat(parts))).toBe(0);
      }),
      { numRuns: 25 },
    );
  });

  it("goes on beside others of its connection", async () => {
    const bulk = connection(await serve(echo));
    const one = (value: number): Buffer[][] => Array.from({ length: 8 }, () => [Buffer.alloc(CHUNK_BYTES, value)]);
    const answers = await Promise.all([1, 2, 3, 4].map(async (value) => ({ value, back: await talk(bulk, one(value)) })));
    for (const { value, back } of answers) {
      expect(Buffer.compare(Buffer.concat(back), Buffer.concat(one(value).flat()))).toBe(0);
    }
  });

  it("brings the token", async () => {
    const seen: unknown[] = [];
    const path = await serve((call) => {
      seen.push(...call.metadata.get("authorization"));
      call.end();
    });
    await talk(connection(path), []);
    expect(seen).toEqual(["Bearer a-token-for-the-tests"]);
  });

  it("holds the sender back while the far side does not read", async () => {
    const bulk = connection(await serve((call) => call.on("end", () => call.end())));
    const call = bulk.open({ path: PATH, onMessage: () => {} });
    call.done.catch(() => {});
    let sent = 0;
    const sending = (async () => {
      for (; sent < 64; sent++) await call.write([Buffer.alloc(CHUNK_BYTES)]);
    })();
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(sent).toBeLessThan(16);
    void call.write([Buffer.of(1)]);
    expect(call.isFull).toBe(true);
    call.cancel();
    await sending;
    expect(call.isFull).toBe(false);
  });

  it("ends with the status that it was given, and what goes with it", async () => {
    const metadata = new Metadata();
    metadata.set("detail-bin", Buffer.from([0, 255, 3]));
    const path = await serve((call) => call.emit("error", { code: status.DATA_LOSS, details: "100 % lost: ü", metadata }));
    const error = await failure(connection(path));
    expect(error).toMatchObject({ code: status.DATA_LOSS, details: "100 % lost: ü" });
    expect((error as { metadata: Metadata }).metadata.get("detail-bin")).toEqual([Buffer.from([0, 255, 3])]);
  });

  it("ends with what is thrown at a message, also where its success came with that", async () => {
    const own = new RangeError("the caller's");
    const path = await serveHttp2((stream) => {
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(Buffer.alloc(10));
    });
    let taken = 0;
    const onMessage = (): never => {
      taken += 1;
      throw own;
    };
    await expect(connection(path).open({ path: PATH, onMessage }).done).rejects.toBe(own);
    expect(taken).toBe(1);
  });

  it("ends with what is thrown at a message, and the far side learns of it", async () => {
    const own = new RangeError("the caller's");
    let cancelled = false;
    const path = await serve((call) => {
      call.on("cancelled", () => {
        cancelled = true;
      });
      echo(call);
    });
    const onMessage = (): never => {
      throw own;
    };
    const call = connection(path).open({ path: PATH, onMessage });
    void call.write([Buffer.from("x")]);
    await expect(call.done).rejects.toBe(own);
    await expect.poll(() => cancelled).toBe(true);
  });

  it("sends and takes no message that is too large", async () => {
    const large = Buffer.alloc(MAX_MESSAGE_BYTES + 1);
    expect(await failure(connection(await serve(echo)), [[large]])).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
    const talkative = await serve((call) => call.write(large));
    expect(await failure(connection(talkative))).toMatchObject({ code: status.RESOURCE_EXHAUSTED });
  });

  it("that was cancelled says so at once, also before it was connected", async () => {
    for (const path of [await serve(() => {}), await silentPeer()]) {
      const call = connection(path).open({ path: PATH, onMessage: () => {} });
      call.cancel();
      await expect(call.done).rejects.toMatchObject({ code: status.CANCELLED });
    }
  });
});

/** Listens until the test ends, and does something with each connection. */
async function peer(onConnection: (socket: Socket) => void): Promise<string> {
  const path = join(await temporaryFolder(), "p");
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket.on("error", () => {}));
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return path;
}

const silentPeer = (): Promise<string> => peer(() => {});

/** Answers each call over HTTP/2 until the test ends, as no server of gRPC has to. */
async function serveHttp2(answer: (stream: ServerHttp2Stream) => void): Promise<string> {
  const path = join(await temporaryFolder(), "h");
  const server = createHttp2Server().on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => {});
    answer(stream);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(() => void server.close());
  return path;
}

function withText(httpStatus: number, text: string): (stream: ServerHttp2Stream) => void {
  return (stream) => {
    stream.respond({ ":status": httpStatus });
    // In a frame of its own, not in the one that ends the stream.
    stream.write(text, () => stream.end());
  };
}

describe("a peer", () => {
  it.each<[string, (stream: ServerHttp2Stream) => void, object]>([
    ["is none of gRPC", (stream) => stream.respond({ ":status": 404 }, { endStream: true }), { code: status.UNIMPLEMENTED }],
    ["is a gateway without its shim", (stream) => stream.respond({ ":status": 503 }, { endStream: true }), { code: status.UNAVAILABLE }],
    ["is a gateway that says more of it", withText(503, "upstream connect error"), { code: status.UNAVAILABLE }],
    ["is a gateway that says little of it", withText(503, "no"), { code: status.UNAVAILABLE }],
    ["lets nobody in", withText(401, "who are you?"), { code: status.UNAUTHENTICATED }],
    ["answers something else", withText(200, "<html></html>"), { code: status.INTERNAL, details: expect.stringMatching(/compressed/) }],
    ["ends without a word", withText(200, ""), { code: status.UNKNOWN }],
    ["refuses", (stream) => stream.close(7), { code: status.UNAVAILABLE }],
    ["resets", (stream) => stream.close(2), { code: status.INTERNAL, details: expect.stringMatching(/code 2/) }],
    ["ends without a status", (stream) => stream.respond({ ":status": 200 }, { endStream: true }), { code: status.UNKNOWN }],
  ])("that %s is told from one that is not there", async (_what, answer, expected) => {
    expect(await failure(connection(await serveHttp2(answer)))).toMatchObject(expected);
  });

  it("that ends within a message has not succeeded", async () => {
    const path = await serveHttp2((stream) => {
      stream.respond({ ":status": 200 }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(Buffer.from([0, 0, 0, 0, 9, 1, 2, 3]));
    });
    expect(await failure(connection(path))).toMatchObject({ code: status.INTERNAL, details: expect.stringMatching(/within a message/) });
  });

  it.each<[string, () => Promise<string>, RegExp]>([
    ["is not there", async () => join(await temporaryFolder(), "nothing"), /ENOENT/],
    ["hangs up", () => peer((socket) => socket.destroy()), /connection broke/],
    ["says nothing", silentPeer, /within 0.3 s/],
    ["speaks something else", () => peer((socket) => void socket.write("HTTP/1.1 400 Bad Request\r\n\r\n")), /connection broke/],
  ])("that %s cannot be reached", async (_what, path, details) => {
    const error = await failure(connection(await path(), { connect: 300 }));
    expect(error).toMatchObject({ code: status.UNAVAILABLE, details: expect.stringMatching(details) });
  });

  it("that went away with an error is called anew, also by whoever has just learnt that", async () => {
    let connections = 0;
    const path = await peer((socket) => {
      connections += 1;
      const settings = frameHeader({ length: 0, type: FRAME.settings, flags: 0, streamId: 0 });
      const goAway = frameHeader({ length: 8, type: 7, flags: 0, streamId: 0 });
      socket.write(Buffer.concat([settings, goAway, Buffer.from([0, 0, 0, 0, 0, 0, 0, 11])]));
    });
    const bulk = connection(path);
    const call = (): Promise<void> => bulk.open({ path: PATH, onMessage: () => {} }).done;
    await expect(call().catch(call)).rejects.toMatchObject({ code: status.UNAVAILABLE });
    expect(connections).toBe(2);
  });

  it("that falls silent is given up by its ping", async () => {
    const proxy = await FlakyProxy.to(`unix:${await serve(echo)}`);
    const bulk = connection(proxy.address.slice("unix:".length), { keepalive: 100, keepaliveAnswer: 100 });
    await talk(bulk, [[Buffer.from("x")]]);
    const call = bulk.open({ path: PATH, onMessage: () => {} });
    proxy.freeze();
    await expect(call.done).rejects.toMatchObject({ code: status.UNAVAILABLE, details: expect.stringMatching(/ping/) });
    expect(await talk(bulk, [[Buffer.from("y")]])).toEqual([Buffer.from("y")]);
    expect(proxy.connections).toBe(2);
  });
});

it("a connection that breaks within a call ends what is sent over it, and the next call makes another", async () => {
  const proxy = await FlakyProxy.to(`unix:${await serve(() => {})}`);
  const bulk = connection(proxy.address.slice("unix:".length));
  const call = bulk.open({ path: PATH, onMessage: () => {} });
  let ended = false;
  call.done.catch(() => {
    ended = true;
  });
  // It leaves no turn of its own to the news that the call has ended.
  const sending = (async () => {
    while (!ended) await call.write([Buffer.alloc(CHUNK_BYTES)]);
  })();
  await new Promise((resolve) => setTimeout(resolve, 100));
  proxy.cut();
  await expect(call.done).rejects.toMatchObject({ code: status.UNAVAILABLE });
  await sending;
  bulk.open({ path: PATH, onMessage: () => {} }).done.catch(() => {});
  await expect.poll(() => proxy.connections).toBe(2);
});

it("a connection that was closed ends its calls, and begins none", async () => {
  const bulk = connection(await serve(() => {}));
  const call = bulk.open({ path: PATH, onMessage: () => {} });
  bulk.close();
  await expect(call.done).rejects.toMatchObject({ code: status.UNAVAILABLE });
  expect(() => bulk.open({ path: PATH, onMessage: () => {} })).toThrow(expect.objectContaining({ code: status.CANCELLED }));
});

it("a connection over which the peer takes no new calls is closed with the one after it", async () => {
  const calls: ServerHttp2Stream[] = [];
  const path = await serveHttp2((stream) => {
    calls.push(stream);
    stream.respond({ ":status": 200 });
  });
  const bulk = connection(path);
  const draining = bulk.open({ path: PATH, onMessage: () => {} });
  await expect.poll(() => calls.length).toBe(1);
  calls[0]?.session?.goaway();
  await expect.poll(() => calls[0]?.session?.closed).toBe(true);
  const later = bulk.open({ path: PATH, onMessage: () => {} });
  await expect.poll(() => calls.length).toBe(2);
  expect(calls[0]?.session).not.toBe(calls[1]?.session);
  bulk.close();
  for (const { done } of [draining, later]) await expect(done).rejects.toMatchObject({ code: status.UNAVAILABLE });
});

it("a shim that goes by another name than its host is called by that", async () => {
  const dir = await temporaryFolder();
  const authority = await makeAuthority(dir, "authority");
  const { cert, key } = await issue(dir, authority, "server", "subjectAltName=DNS:elsewhere");
  const called: (string | undefined)[] = [];
  const server = createSecureServer({ cert: await readFile(cert), key: await readFile(key) });
  server.on("stream", (stream: ServerHttp2Stream, headers) => {
    called.push(headers[":authority"]);
    stream.respond({ ":status": 200, "grpc-status": "0" }, { endStream: true });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const tls = { ca: authority.cert, serverName: "elsewhere" };
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const bulk = new BulkConnection(await parseEndpoint(address, { token: token.reveal(), tls }), TIMEOUTS);
  onTestFinished(() => bulk.close());
  await talk(bulk, []);
  expect(called).toEqual(["elsewhere"]);
});

it("a peer whose certificate is not believed is told nothing", async () => {
  const dir = await temporaryFolder();
  const [authority, other] = await Promise.all([makeAuthority(dir, "authority"), makeAuthority(dir, "other")]);
  const { cert, key } = await issue(dir, other, "server", "subjectAltName=DNS:localhost");
  let heard = 0;
  const server = createTlsServer({ cert: await readFile(cert), key: await readFile(key), ALPNProtocols: ["h2"] }, (socket) => {
    socket.on("data", ({ length }) => {
      heard += length;
    });
    socket.on("error", () => {});
  });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const address = `localhost:${(server.address() as AddressInfo).port}`;
  const bulk = new BulkConnection(await parseEndpoint(address, { token: token.reveal(), tls: { ca: authority.cert } }), TIMEOUTS);
  onTestFinished(() => bulk.close());
  expect(await failure(bulk)).toMatchObject({ code: status.UNAVAILABLE, details: expect.stringMatching(/unable to|self.signed/) });
  expect(heard).toBe(0);
});
