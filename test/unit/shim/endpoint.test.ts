import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { describe, expect, it } from "vitest";
import { type AttachOptions, parseEndpoint } from "../../../src/shim/endpoint.js";
import { Token } from "../../../src/shim/token.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";
import { makeAuthority } from "../../fixtures/listeners.js";

const token = "a-token-for-the-tests";

describe("an address", () => {
  it.each(["localhost:7070", "127.0.0.1:1", "127.8.9.1:65535", "[::1]:7070", "unix:/run/shim"])("%s is this machine", async (address) => {
    expect((await parseEndpoint(address, { token })).address).toBe(address);
  });

  it.each(["node-17:7070", "10.0.0.1:1", "0.0.0.0:1", "[::]:1", "localhost.evil.org:1", "127.0.0.1.evil.org:1"])(
    "%s needs TLS",
    async (address) => {
      await expect(parseEndpoint(address, { token })).rejects.toMatchObject({
        code: "BAD_OPTION",
        detail: expect.stringMatching(/in the clear/),
      });
      expect((await parseEndpoint(address, { token, tls: true })).target).toBe(`dns:${address}`);
    },
  );

  it.each([
    "",
    "7070",
    "localhost",
    "localhost:0",
    "localhost:70000",
    "http://localhost:7070",
    "user@localhost:7070",
    "a b:1",
    "unix:",
    "[::1",
  ])("%j is none", async (address) => {
    await expect(parseEndpoint(address, { token })).rejects.toMatchObject({ code: "BAD_OPTION" });
  });
});

describe("options", () => {
  it.each<[string, AttachOptions, string]>([
    ["no token", {}, "BAD_OPTION"],
    ["two tokens", { token, tokenFile: "x" }, "BAD_OPTION"],
    ["a short token", { token: "short" }, "BAD_OPTION"],
    ["a token of two words", { token: "two words of a certain length" }, "BAD_OPTION"],
    ["a token file that is not there", { tokenFile: "/no/such/file" }, "PATH_NOT_FOUND"],
    ["a certificate without its key", { token, tls: { cert: "x" } }, "BAD_OPTION"],
    ["an authority that is not there", { token, tls: { ca: "/no/such/file" } }, "PATH_NOT_FOUND"],
  ])("with %s are refused", async (_what, options, code) => {
    const error = await parseEndpoint("localhost:7070", options).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code });
    for (const secret of [options.token, token]) if (secret !== undefined) expect(inspect(error)).not.toContain(secret);
  });

  it("take no TLS over a unix socket", async () => {
    await expect(parseEndpoint("unix:/x", { token, tls: true })).rejects.toMatchObject({ code: "BAD_OPTION" });
  });

  it("take PEM files alone", async () => {
    const path = join(await temporaryFolder(), "no.pem");
    await writeFile(path, "no certificate");
    await expect(parseEndpoint("localhost:1", { token, tls: { ca: path } })).rejects.toMatchObject({ code: "BAD_OPTION" });
    const garbage = "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n";
    await writeFile(path, garbage);
    await expect(parseEndpoint("localhost:1", { token, tls: { cert: path, key: path } })).rejects.toMatchObject({ code: "BAD_OPTION" });
    await writeFile(path, "-----BEGIN PRIVATE KEY-----\nnothing\n-----END PRIVATE KEY-----\n");
    await expect(parseEndpoint("localhost:1", { token, tls: { ca: path } })).rejects.toThrow(`tls.ca: ${path} has no certificate`);
  });

  it("take authorities of which each certificate can be read", async () => {
    const dir = await temporaryFolder();
    const [authority, path] = [await makeAuthority(dir, "authority"), join(dir, "bundle.pem")];
    const whole = await readFile(authority.cert, "utf8");
    await writeFile(path, `an authority\n${whole}another\n${whole}`);
    expect(await parseEndpoint("localhost:1", { token, tls: { ca: path } })).toMatchObject({ target: "dns:localhost:1" });
    await writeFile(path, whole + whole.slice(0, 200));
    const error = await parseEndpoint("localhost:1", { token, tls: { ca: path } }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "BAD_OPTION", detail: expect.stringContaining(`tls.ca: ${path}: certificate 2 of 2`) });
  });
});

it("a token shows itself to nobody but its sender", () => {
  const kept = new Token(` ${token}\n`, "token");
  expect(kept.reveal()).toBe(token);
  for (const shown of [inspect(kept, { showHidden: true, depth: 9 }), JSON.stringify(kept), String(kept)])
    expect(shown).not.toContain(token);
  expect(Token.random().reveal()).toMatch(/^[0-9a-f]{64}$/);
});
