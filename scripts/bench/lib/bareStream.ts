// What the streaming of tensors is measured against.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const MIB = 1 << 20;
const ROUNDS = 3;
const SCRIPT = join(dirname(fileURLToPath(import.meta.url)), "..", "stream_raw.py");

/** GB/s of copying in memory, into memory that was used before and into fresh. */
export function measureCopies(bytes: number): [name: string, rate: number][] {
  const [from, used] = [Buffer.alloc(bytes, 1), Buffer.alloc(bytes, 1)];
  return [
    ["a copy in memory", fastest(bytes, ROUNDS, () => from.copy(used))],
    ["a copy into fresh memory", fastest(bytes, ROUNDS, () => from.copy(Buffer.allocUnsafeSlow(bytes)))],
  ];
}

/** GB/s of a bare unix socket between Node and Python, a MiB at a time. */
export async function measureSocket(folder: string, bytes: number): Promise<[name: string, rate: number][]> {
  const path = join(folder, "raw.sock");
  const server = createServer().listen(path);
  await once(server, "listening");
  const far = spawn(process.env["PRUNEBRIDGE_PYTHON"] ?? "python3", [SCRIPT, path], { stdio: ["pipe", "ignore", "inherit"] });
  const [socket] = (await once(server, "connection")) as [Socket];
  const up: number[] = [];
  const down: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const began = performance.now();
    far.stdin.write(`take ${bytes}\n`);
    await sendAll(socket, bytes);
    const turned = performance.now();
    far.stdin.write(`give ${bytes}\n`);
    await takeAll(socket, bytes);
    up.push(turned - began);
    down.push(performance.now() - turned);
  }
  far.stdin.end();
  socket.destroy();
  server.close();
  const rate = (taken: readonly number[]): number => bytes / 1e6 / Math.min(...taken);
  return [
    ["a bare unix socket to Python", rate(up)],
    ["a bare unix socket from Python", rate(down)],
  ];
}

async function sendAll(socket: Socket, bytes: number): Promise<void> {
  const block = Buffer.alloc(MIB, 1);
  for (let sent = 0; sent < bytes; sent += MIB) if (!socket.write(block)) await once(socket, "drain");
  await takeAll(socket, 1);
}

function takeAll(socket: Socket, bytes: number): Promise<void> {
  return new Promise((resolve) => {
    let left = bytes;
    const take = (data: Buffer): void => {
      left -= data.length;
      if (left > 0) return;
      socket.off("data", take);
      socket.pause();
      resolve();
    };
    socket.on("data", take);
    socket.resume();
  });
}

function fastest(bytes: number, rounds: number, work: () => void): number {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    const began = performance.now();
    work();
    least = Math.min(least, performance.now() - began);
  }
  return bytes / 1e6 / least;
}
