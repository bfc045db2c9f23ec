import { createSecureContext, type SecureContext } from "node:tls";
import { PruneError } from "../errors.js";
import type { Timeouts } from "./options.js";
import { checkAuthorities, readPem } from "./pem.js";
import { readToken, type Token, type TokenOptions } from "./token.js";

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

/** How to attach to a shim. */
export interface AttachOptions extends TokenOptions {
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
  const { host = "", port } = parseAddress(target.slice("dns:".length));
  return { host, port };
}

/**
 * The endpoint that an address and options name.
 *
 * @param address - `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`
 * @throws PruneError BAD_OPTION, also where the token would go to another machine in the clear; PATH_NOT_FOUND
 */
export async function parseEndpoint(address: string, options: AttachOptions): Promise<Endpoint> {
  const { host, port, isLocal } = parseAddress(address);
  if (host !== undefined && port === 0)
    throw new PruneError("BAD_OPTION", `${address} has no port`, { hint: "give the port that the shim told in its readiness line" });
  const { tls } = options;
  if (tls === undefined && !isLocal) {
    throw new PruneError("BAD_OPTION", `${address} is another machine, and the token would go to it in the clear`, {
      hint: "give tls; or reach the shim by a tunnel that ends on 127.0.0.1",
    });
  }
  if (tls !== undefined && host === undefined)
    throw new PruneError("BAD_OPTION", `${address} is a unix socket, which takes no TLS`, { hint: "leave out tls" });
  const token = await readToken(options, "attaching to a shim");
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

/** Takes an address apart; `host` is undefined for a unix socket. Throws BAD_OPTION. */
export function parseAddress(address: string): { host?: string; port: number; isLocal: boolean } {
  if (/^unix:./.test(address)) return { port: 0, isLocal: true };
  const match = /^(?:\[([0-9a-f:.]+)\]|([^\s:/[\]@]+)):(\d{1,5})$/i.exec(address);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535) {
    throw new PruneError("BAD_OPTION", `${JSON.stringify(address)} is no address of a shim`, {
      hint: 'write "host:port", "[ipv6]:port" or "unix:/path"',
    });
  }
  return { host, port, isLocal: /^(localhost|127\.\d+\.\d+\.\d+|::1)$/i.test(host) };
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
