import { X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";
import { PruneError } from "../errors.js";
import type { Timeouts } from "./options.js";
import { readText, Token } from "./token.js";

const CERTIFICATE = "-----BEGIN CERTIFICATE-----";
const HOW_TO_CA = "give the PEM certificates of the authorities, one after the other";

/** Where a shim is, and what it takes to talk to it. */
export interface Endpoint {
  /** As users write it. */
  readonly address: string;
  /** As grpc-js takes it. */
  readonly target: string;
  readonly token: Token;
  /** For TLS. */
  readonly secureContext?: SecureContext | undefined;
  /** The name that its certificate has to be for, where that is not the host's. */
  readonly serverName?: string | undefined;
}

/** Whom to believe, and what to prove oneself with. Files are PEM. */
export interface TlsOptions {
  /** The file of the authorities that the shim's certificate may be by. Default: those that Node.js knows. */
  readonly ca?: string | undefined;
  /** The file of a certificate, for a shim that asks its clients for one; it goes with `key`. */
  readonly cert?: string | undefined;
  /** The file of the certificate's key. */
  readonly key?: string | undefined;
  /** The name that the shim's certificate has to be for. Default: the host of the address. */
  readonly serverName?: string | undefined;
}

/** How to attach to a shim. One of `token` and `tokenFile` is needed. */
export interface AttachOptions {
  /** The token, as the shim's token file has it. */
  readonly token?: string | undefined;
  /** A file with the token. */
  readonly tokenFile?: string | undefined;
  /** TLS, with `true` by the authorities that Node.js knows. Default: none, which only a unix socket and this machine itself allow. */
  readonly tls?: TlsOptions | true | undefined;
  /** Limits on waiting, in milliseconds, where the defaults do not fit. */
  readonly timeouts?: Partial<Timeouts> | undefined;
}

/** A shim on a unix socket of this machine. */
export function socketEndpoint(path: string, token: Token): Endpoint {
  const target = `unix:${path}`;
  return { address: target, target, token };
}

/** Where a connection leads, as Node.js takes it. */
export type Place = { readonly path: string } | { readonly host: string; readonly port: number };

/** The place of an endpoint's target. */
export function placeOf(target: string): Place {
  if (target.startsWith("unix:")) return { path: target.slice("unix:".length) };
  const [, host = "", port] = /^dns:\[?(.*?)\]?:(\d+)$/.exec(target) ?? [];
  return { host, port: Number(port) };
}

/**
 * The endpoint that an address and options name.
 *
 * @param address - `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`
 * @throws PruneError BAD_OPTION, also where the token would go to another machine in the clear; PATH_NOT_FOUND
 */
export async function parseEndpoint(address: string, options: AttachOptions): Promise<Endpoint> {
  const { host, isLocal } = parseAddress(address);
  const { tls } = options;
  if (tls === undefined && !isLocal) {
    throw new PruneError("BAD_OPTION", `${address} is another machine, and the token would go to it in the clear`, {
      hint: "give tls; or reach the shim by a tunnel that ends on 127.0.0.1",
    });
  }
  if (tls !== undefined && host === undefined)
    throw new PruneError("BAD_OPTION", `${address} is a unix socket, which takes no TLS`, { hint: "leave out tls" });
  const token = await readToken(options);
  if (host === undefined) return socketEndpoint(address.slice("unix:".length), token);
  const { serverName, ...files } = tls === true || tls === undefined ? {} : tls;
  return {
    address,
    target: `dns:${address}`,
    token,
    secureContext: tls === undefined ? undefined : await readTls(files),
    serverName,
  };
}

function parseAddress(address: string): { host?: string; isLocal: boolean } {
  if (/^unix:./.test(address)) return { isLocal: true };
  const match = /^(?:\[([0-9a-f:.]+)\]|([^\s:/[\]@]+)):(\d{1,5})$/i.exec(address);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port < 1 || port > 65_535) {
    throw new PruneError("BAD_OPTION", `${JSON.stringify(address)} is no address of a shim`, {
      hint: 'write "host:port", "[ipv6]:port" or "unix:/path"',
    });
  }
  return { host, isLocal: /^(localhost|127\.\d+\.\d+\.\d+|::1)$/i.test(host) };
}

async function readToken({ token, tokenFile }: AttachOptions): Promise<Token> {
  if (token !== undefined && tokenFile !== undefined) throw new PruneError("BAD_OPTION", "token and tokenFile exclude each other");
  if (token !== undefined) return new Token(token, "token");
  if (tokenFile !== undefined) return Token.read(tokenFile);
  throw new PruneError("BAD_OPTION", "attaching to a shim needs a token", { hint: "give token or tokenFile" });
}

async function readTls({ ca, cert, key }: TlsOptions): Promise<SecureContext> {
  if ((cert === undefined) !== (key === undefined)) throw new PruneError("BAD_OPTION", "tls.cert and tls.key go together");
  const [authorities, chain, secret] = await Promise.all([readPem(ca, "tls.ca"), readPem(cert, "tls.cert"), readPem(key, "tls.key")]);
  if (authorities !== null) checkAuthorities(authorities.toString(), `tls.ca: ${ca}`);
  try {
    return createSecureContext({ ca: authorities ?? undefined, key: secret ?? undefined, cert: chain ?? undefined });
  } catch (cause) {
    throw new PruneError("BAD_OPTION", `${cert} with the key ${key} cannot be used: ${(cause as Error).message}`, {
      hint: "give a PEM certificate and its own key, without a password",
      cause,
    });
  }
}

/** OpenSSL passes over what it cannot read among authorities, and then believes in nobody. */
function checkAuthorities(pem: string, source: string): void {
  const parts = pem.split(CERTIFICATE).slice(1);
  if (parts.length === 0) throw new PruneError("BAD_OPTION", `${source} has no certificate`, { hint: HOW_TO_CA });
  for (const [i, part] of parts.entries()) {
    try {
      new X509Certificate(CERTIFICATE + part);
    } catch (cause) {
      const detail = `${source}: certificate ${i + 1} of ${parts.length} cannot be read: ${(cause as Error).message}`;
      throw new PruneError("BAD_OPTION", detail, { hint: HOW_TO_CA, cause });
    }
  }
}

async function readPem(path: string | undefined, option: string): Promise<Buffer | null> {
  if (path === undefined) return null;
  const text = await readText(path, option);
  if (text.includes("-----BEGIN ")) return Buffer.from(text);
  throw new PruneError("BAD_OPTION", `${option}: ${path} is no PEM file`);
}
