// How fast tensors go through a forward loop, to the shim and back, against a bare unix socket and a copy in memory, in one run.
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { encodeSafetensors } from "../../src/checkpoint/writeSafetensors.js";
import { Bridge, formatTable, type LoopModel, type Tensor } from "../../src/index.js";
import { readArchitecture } from "../../src/policy/architecture.js";
import { expectedTensors } from "../../src/policy/tensors.js";
import { bytesOf } from "../../src/tensor.js";
import { measureCopies, measureSocket } from "./lib/bareStream.js";

const MIB = 1 << 20;
const ROUNDS = 5;
const TICKS_PER_SECOND = 100;
const SIZES = [
  { mib: 1, batches: 256 },
  { mib: 16, batches: 16 },
  { mib: 64, batches: 4 },
  { mib: 256, batches: 2 },
];
// One MLP block: no part of it reads a mask of four axes. A token's logits are one MiB.
const CONFIG = {
  architectures: ["NemotronHForCausalLM"],
  model_type: "nemotron_h",
  layers_block_type: ["mlp"],
  hidden_size: 8,
  intermediate_size: 8,
  vocab_size: MIB / Float32Array.BYTES_PER_ELEMENT,
  num_attention_heads: 1,
  num_key_value_heads: 1,
  head_dim: 8,
  tie_word_embeddings: false,
  dtype: "float32",
};

/** One round: seconds in all, within forward passes, and of CPU on either side. */
interface Sample {
  readonly wall: number;
  readonly model: number;
  readonly ours: number;
  readonly shim: number;
}

const scratch = await mkdtemp(join(tmpdir(), "prunebridge-bench-"));
try {
  await writeModel(join(scratch, "model"));
  await using bridge = await Bridge.spawn();
  const model = await bridge.open(join(scratch, "model"), { device: "cpu" });

  const rows = [["", "GB/s", "GB/s beside the model", "CPU here, s/GB", "CPU of the shim, s/GB"]];
  for (const { mib, batches } of SIZES) {
    const sent: Sample[] = [];
    const answered: Sample[] = [];
    const taken: Sample[] = [];
    const memory = new Float32Array((mib * MIB) / Float32Array.BYTES_PER_ELEMENT);
    for (let round = -1; round < ROUNDS; round++) {
      const up = await sample(sendMasks(mib, batches));
      const down = await sample(fetchLogits(mib, batches));
      const reused = await sample(fetchLogits(mib, batches, memory));
      // The first round warms up.
      if (round < 0) continue;
      sent.push(up);
      answered.push(down);
      taken.push(reused);
    }
    rows.push(figures(`${batches} x ${mib} MiB to the shim`, mib * batches, sent));
    rows.push(figures(`${batches} x ${mib} MiB from the shim`, mib * batches, answered));
    rows.push(figures(`${batches} x ${mib} MiB from the shim, into memory that is used again`, mib * batches, taken));
  }
  for (const [name, rate] of [...measureCopies(256 * MIB), ...(await measureSocket(scratch, 512 * MIB))])
    rows.push([name, rate.toFixed(2), "", "", ""]);
  console.log(`the fastest of ${ROUNDS} rounds (${cpus()[0]?.model}, ${cpus().length} threads)\n`);
  console.log(formatTable(rows));
  console.log("\ngoal: 1 GB/s each way");

  async function sample(loop: (looped: LoopModel) => Promise<void>): Promise<Sample> {
    const [began, own, shim] = [performance.now(), process.cpuUsage(), await shimCpu(bridge.pid)];
    const { forwardSeconds } = await model.collect([], loop);
    const wall = (performance.now() - began) / 1e3;
    const { user, system } = process.cpuUsage(own);
    return { wall, model: forwardSeconds, ours: (user + system) / 1e6, shim: (await shimCpu(bridge.pid)) - shim };
  }
} finally {
  await rm(scratch, { recursive: true });
}

function sendMasks(mib: number, batches: number): (looped: LoopModel) => Promise<void> {
  const mask: Tensor = { dtype: "F32", shape: [1, 1, mib, MIB / 4], data: new Uint8Array(mib * MIB) };
  return async (looped) => {
    for (let batch = 0; batch < batches; batch++) await looped.forward({ input_ids: [[1]], attention_mask: mask });
  };
}

function fetchLogits(tokens: number, batches: number, into?: Float32Array): (looped: LoopModel) => Promise<void> {
  const ids = new Int32Array(tokens);
  return async (looped) => {
    for (let batch = 0; batch < batches; batch++) await looped.forward(ids, { returns: "logits", into });
  };
}

function figures(name: string, mib: number, samples: readonly Sample[]): string[] {
  const gigabytes = (mib * MIB) / 1e9;
  const least = (of: (sample: Sample) => number): number => Math.min(...samples.map(of));
  return [
    name,
    (gigabytes / least(({ wall }) => wall)).toFixed(2),
    (gigabytes / least(({ wall, model }) => wall - model)).toFixed(2),
    (least(({ ours }) => ours) / gigabytes).toFixed(2),
    (least(({ shim }) => shim) / gigabytes).toFixed(2),
  ];
}

/** User and system time of the shim so far (proc(5): fields 14 and 15 of stat). */
async function shimCpu(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

async function writeModel(folder: string): Promise<void> {
  await mkdir(folder);
  const tensors = expectedTensors(readArchitecture(CONFIG)).map(({ stored: { name, shape } }) => {
    const size = shape.reduce((product, axis) => product * axis, 1);
    return { name, dtype: "F32" as const, shape, data: bytesOf(Float32Array.from({ length: size }, (_, i) => (i % 7) - 3)) };
  });
  await writeFile(join(folder, "config.json"), JSON.stringify(CONFIG));
  await writeFile(join(folder, "model.safetensors"), encodeSafetensors(tensors, { format: "pt" }));
}
