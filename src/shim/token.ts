import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { PruneError } from "../errors.js";

const LENGTHS = { min: 16, max: 1024 };
const HOW_TO_MAKE = "make one with: openssl rand -hex 32";

/** A token, which neither errors nor inspections show. */
export class Token {
  readonly #text: string;

  /**
   * @param text - 16 to 1024 characters of visible ASCII; white space around them is dropped
   * @param source - where it is from, for the error
   * @throws PruneError BAD_OPTION
   */
  constructor(text: string, source: string) {
    this.#text = text.trim();
    const { length } = this.#text;
    if (length < LENGTHS.min || length > LENGTHS.max) {
      const detail = `${source} has ${length} characters; a token has ${LENGTHS.min} to ${LENGTHS.max}`;
      throw new PruneError("BAD_OPTION", detail, { hint: HOW_TO_MAKE });
    }
    if (!/^[!-~]+$/.test(this.#text))
      throw new PruneError("BAD_OPTION", `${source} is not one word of visible ASCII`, { hint: HOW_TO_MAKE });
  }

  /** A new token, which nobody can guess. */
  static random(): Token {
    return new Token(randomBytes(32).toString("hex"), "a random token");
  }

  /** Reads a token from a file. Throws PATH_NOT_FOUND or BAD_OPTION. */
  static async read(path: string): Promise<Token> {
    return new Token(await readText(path, "token"), `the token file ${path}`);
  }

  /** Whether a text is this token; how long that takes tells nothing of it. */
  is(text: string): boolean {
    return timingSafeEqual(digestOf(text), digestOf(this.#text));
  }

  /** The text, for whoever sends it. */
  reveal(): string {
    return this.#text;
  }
}

/** Where a token is. One of the two is needed. */
export interface TokenOptions {
  /** The token, as the shim's token file has it. */
  readonly token?: string | undefined;
  /** A file with the token. */
  readonly tokenFile?: string | undefined;
}

/** The token that options give. Throws BAD_OPTION or PATH_NOT_FOUND. */
export async function readToken({ token, tokenFile }: TokenOptions, purpose: string): Promise<Token> {
  if (token !== undefined && tokenFile !== undefined) throw new PruneError("BAD_OPTION", "token and tokenFile exclude each other");
  if (token !== undefined) return new Token(token, "token");
  if (tokenFile !== undefined) return Token.read(tokenFile);
  throw new PruneError("BAD_OPTION", `${purpose} needs a token`, { hint: "give token or tokenFile" });
}

/** Reads a file that an option names. Throws PATH_NOT_FOUND. */
export async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new PruneError("PATH_NOT_FOUND", `cannot read the ${what} file ${path}: ${(cause as NodeJS.ErrnoException).code}`, { cause });
  }
}

function digestOf(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
