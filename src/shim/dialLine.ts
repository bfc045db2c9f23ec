import type { Socket } from "node:net";
import { z } from "zod";
import { parseJson } from "./readiness.js";
import type { Token } from "./token.js";

/** The longest first line, in bytes. */
export const MOST_BYTES = 4096;

const NEWLINE = 0x0a;
/** How long a peer that was refused may take to read why, in milliseconds. */
const FAREWELL_MS = 1_000;

const dialIn = z.looseObject({ prunebridge_dial: z.literal(1), token: z.string() });

/**
 * Reads what a job says when it has dialled in, one line of JSON, `{"prunebridge_dial":1,"token":"..."}`.
 *
 * @param patience - how long it may take, in milliseconds
 * @returns why it is refused, in words; undefined where it is let in. Where it hangs up first, that is why
 */
export async function refusalOf(socket: Socket, token: Token, patience: number): Promise<string | undefined> {
  const line = await firstLine(socket, patience);
  if ("refusal" in line) return line.refusal;
  const parsed = dialIn.safeParse(parseJson(line.text));
  if (!parsed.success) return 'the first line is not {"prunebridge_dial":1,"token":"..."}';
  return token.is(parsed.data.token) ? undefined : "the token is not the one of this listener";
}

/** Answers a job that its connection is taken: from here on it carries gRPC. */
export function welcome(socket: Socket): void {
  socket.write('{"ok":true}\n');
}

/** Answers a job why it is refused, and hangs up. */
export function refuse(socket: Socket, why: string): void {
  if (socket.destroyed) return;
  socket.end(`${JSON.stringify({ error: why })}\n`);
  // A connection that is closed with something unread is reset, and the peer then reads nothing.
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), FAREWELL_MS);
  socket.once("close", () => clearTimeout(timer));
}

/** The first line, which nothing may follow before it is answered. */
function firstLine(socket: Socket, patience: number): Promise<{ text: string } | { refusal: string }> {
  return new Promise((resolve) => {
    let read = Buffer.alloc(0);
    const end = (outcome: { text: string } | { refusal: string }): void => {
      clearTimeout(timer);
      socket.off("data", onData).off("close", onClose);
      resolve(outcome);
    };
    const onClose = (): void => end({ refusal: "it hung up" });
    const onData = (data: Buffer): void => {
      read = Buffer.concat([read, data]);
      const length = read.indexOf(NEWLINE);
      if ((length < 0 ? read.length : length) > MOST_BYTES) end({ refusal: `the first line is longer than ${MOST_BYTES} bytes` });
      else if (length >= 0 && length < read.length - 1) end({ refusal: "there is more than one line before the answer" });
      else if (length >= 0) end({ text: read.toString("utf8", 0, length) });
    };
    const timer = setTimeout(() => end({ refusal: `no line came within ${patience / 1000} s` }), patience);
    socket.on("data", onData).once("close", onClose);
  });
}
