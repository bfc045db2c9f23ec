const HINTS: readonly (readonly [RegExp, string])[] = [
  [/ECONNREFUSED|ENOENT/, "nothing listens there: is the shim running, and is this its address?"],
  [/ENOTFOUND|EAI_AGAIN|name resolution/i, "there is no host of this name"],
  [/certificate has expired/i, "renew the shim's certificate, and start the shim with the new one"],
  [/altnames/i, "the shim's certificate is for another host: give the host that it is for, or its name as tls.serverName"],
  [/self[- ]signed|unable to (verify|get)/i, "tls.ca has to be the authority that the shim's certificate is by"],
  [
    /alert (certificate required|unknown ca|bad certificate|certificate unknown)/i,
    "give tls.cert and tls.key by an authority that the shim lets in",
  ],
  [/wrong version number|packet length/i, "what listens there speaks no TLS"],
];

const HUNG_UP = /ECONNRESET|EPIPE|failed to connect|hang up|connection dropped|disconnected before/i;

/** What to do about a connection that failed, by the words of Node.js and OpenSSL. */
export function hintOnConnection(details: string): string {
  return explanation(details) ?? "see the shim's log";
}

/** What to do about the first connection to a shim that runs already, where that is reset or closed without a reason. */
export function hintOnHangUp(details: string): string | undefined {
  if (explanation(details) !== undefined || !HUNG_UP.test(details)) return undefined;
  return "where the shim has TLS, give tls; where it asks for a certificate, tls.cert and tls.key";
}

function explanation(details: string): string | undefined {
  return HINTS.find(([pattern]) => pattern.test(details))?.[1];
}
