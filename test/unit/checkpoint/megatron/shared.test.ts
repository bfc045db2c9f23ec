import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { expect, it } from "vitest";
import { readDistMetadata } from "../../../../src/checkpoint/megatron/distMetadata.js";
import { RangeFile } from "../../../../src/checkpoint/megatron/rangeFile.js";
import { locateTensor } from "../../../../src/checkpoint/megatron/torchArchive.js";
import { findPython } from "../../../../src/shim/python.js";
import { temporaryFolder } from "../../../fixtures/checkpoints.js";

const CHECKPOINT = "torch.distributed.checkpoint";

/** Lists of which each holds the one before it twice: written out, four million. */
const SHARED = `(]q\0${Array.from({ length: 22 }, (_, i) => `](h${byte(i)}h${byte(i)}eq${byte(i + 1)}`).join("")}t`;

function byte(value: number): string {
  return String.fromCharCode(value);
}

function text(value: string): string {
  return `X${byte(value.length)}\0\0\0${value}`;
}

function object(module: string, name: string, fields: Readonly<Record<string, string>>): string {
  const entries = Object.entries(fields).map(([field, value]) => text(field) + value);
  return `c${module}\n${name}\n)\x81}(${entries.join("")}ub`;
}

const bytes = (program: string): Buffer => Buffer.from(`\x80\x02${program}.`, "latin1");

it.each([
  { fqn: SHARED, file: text("__0_0.distcp") },
  { fqn: text("w"), file: SHARED },
])("a .metadata whose names are lists that share lists is refused", async ({ fqn, file }) => {
  const dir = await temporaryFolder();
  const index = object(`${CHECKPOINT}.metadata`, "MetadataIndex", { fqn, offset: "ctorch\nSize\n)\x85R" });
  const place = object(`${CHECKPOINT}.filesystem`, "_StorageInfo", { relative_path: file, offset: "K\0", length: "K\x01" });
  const metadata = object(`${CHECKPOINT}.metadata`, "Metadata", { state_dict_metadata: "}", storage_data: `}${index}${place}s` });
  await writeFile(join(dir, ".metadata"), bytes(metadata));
  await expect(readDistMetadata(dir)).rejects.toThrow(/places a tensor by something other than texts/);
});

it("a tensor whose sizes are lists within lists is refused", async () => {
  const path = join(await temporaryFolder(), "tensor");
  const storage = `(${text("storage")}ctorch\nFloatStorage\n${text("0")}tQ`;
  const depth = 100_000;
  const deep = `${"]".repeat(depth)}${"a".repeat(depth - 1)}`;
  const tensor = bytes(`ctorch._utils\n_rebuild_tensor_v2\n(${storage}K\0(${deep}t(K\x01tNNtR`);
  const code = `import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as archive:
    archive.writestr("archive/data.pkl", sys.stdin.buffer.read())
    archive.writestr("archive/data/0", bytes(4))`;
  await execa(findPython(), ["-c", code, path], { input: tensor });
  await using file = await RangeFile.open(path);
  const reading = locateTensor(file, 0, file.bytes, { dtype: "F32", shape: [], bytes: 4 });
  await expect(reading).rejects.toThrow(/is not the row-major F32 \[\] that \.metadata says it is/);
});
