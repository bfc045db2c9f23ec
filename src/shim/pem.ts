import { X509Certificate } from "node:crypto";
import { PruneError } from "../errors.js";
import { readText } from "./token.js";

const CERTIFICATE = "-----BEGIN CERTIFICATE-----";
const HOW_TO_CA = "give the PEM certificates of the authorities, one after the other";

/**
 * Checks that a text is certificates of authorities: OpenSSL passes over what it cannot read among them, and then believes in nobody.
 *
 * @throws PruneError BAD_OPTION
 */
export function checkAuthorities(pem: string, source: string): void {
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

/** Reads a PEM file that an option names, where it names one. Throws PATH_NOT_FOUND or BAD_OPTION. */
export async function readPem(path: string | undefined, option: string): Promise<Buffer | null> {
  if (path === undefined) return null;
  const text = await readText(path, option);
  if (text.includes("-----BEGIN ")) return Buffer.from(text);
  throw new PruneError("BAD_OPTION", `${option}: ${path} is no PEM file`);
}
