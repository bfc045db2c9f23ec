import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { Bridge, type LaunchOptions, type PruneError } from "../../../src/index.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";
import { writeMegatronCheckpoint } from "../../fixtures/megatronJobs.js";

// In the place of the interpreter: says what it was given, and fails.
const TELLER = `#!/bin/bash
while [ $# -gt 0 ]; do
  said="$said $1"
  [ "$1" = --token-file ] && token=$2
  shift
done
case "$said" in *"$(cat "$token")"*) said="the token is among the arguments" ;; esac
printf '{"event":"failed","reason":"BAD_DATA","message":"%s; token file of mode %s"}\\n' "$said" "$(stat -c %a "$token")"
`;

let checkpoint: string;
let python: string;
beforeEach(async () => {
  const folder = await temporaryFolder();
  checkpoint = await writeMegatronCheckpoint(join(folder, "checkpoint"), "llama-gqa");
  python = join(folder, "python");
  await writeFile(python, TELLER);
  await chmod(python, 0o700);
});

async function told(options: Partial<LaunchOptions>): Promise<string> {
  const error = await Bridge.launch({ checkpoint, nprocPerNode: 1, python, ...options }).catch((reason: PruneError) => reason);
  expect(error).toMatchObject({ code: "BAD_DATA" });
  return (error as PruneError).detail;
}

describe("what ranks are started with", () => {
  it("is the parallelism that was asked for, under torchrun's and Megatron's names", async () => {
    const detail = await told({
      nprocPerNode: 16,
      tensorModelParallelSize: 2,
      pipelineModelParallelSize: 2,
      contextParallelSize: 2,
      expertModelParallelSize: 2,
      sequenceParallel: true,
      dtype: "bfloat16",
      device: "cuda",
      roots: ["/shared", "/scratch"],
      timeouts: { lostRank: 20_000 },
    });
    for (const flag of [
      `launch --parent-pid ${process.pid} --nproc-per-node 16 megatron --checkpoint ${checkpoint}`,
      "--tensor-model-parallel-size 2",
      "--pipeline-model-parallel-size 2",
      "--context-parallel-size 2",
      "--expert-model-parallel-size 2",
      "--sequence-parallel ",
      "--dtype bfloat16",
      "--device cuda",
      "--root /shared --root /scratch",
      "--deadline 20",
    ])
      expect(detail).toContain(flag);
  });

  it("leaves to the shim what was not asked for", async () => {
    const detail = await told({});
    expect(detail).toContain("--deadline 60 --listen unix:/");
    for (const flag of ["--dtype", "--device", "--sequence-parallel"]) expect(detail).not.toContain(flag);
  });

  it("has the token in a file that nobody else reads, and nowhere else", async () => {
    expect(await told({})).toMatch(/--token-file \S+; token file of mode 600$/);
  });
});
