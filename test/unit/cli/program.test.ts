import { expect, it } from "vitest";
import { buildProgram } from "../../../src/cli/program.js";

// Scripts depend on these: a flag that is added is added here, one that goes is a breaking change.
it("has exactly these commands and flags", () => {
  const surface = Object.fromEntries(
    buildProgram().commands.map((command) => [
      [command.name(), ...command.registeredArguments.map((argument) => `<${argument.name()}>`)].join(" "),
      command.options.map(({ long, mandatory }) => (mandatory ? `${long}!` : long)).join(" "),
    ]),
  );
  const batches = "--seq-length --samples --batch-size";
  const device = "--device --dtype";
  expect(surface).toEqual({
    "inspect <path>": "--json",
    "search <path>":
      "--json --params --active-params --memory-mb --flops --top-k --seq-length --batch-size --hidden-size-divisor " +
      "--ffn-hidden-size-divisor --num-layers-divisor --max-width-pruning --max-depth-pruning --hparams-to-skip",
    "score <dir>": `--json --data! --out! ${batches} ${device}`,
    "plan <path>": "--json --export-config! --scores --skip-sorting --out",
    "slice <dir>": "--json --plan! --out!",
    "prune <dir>": `--json --out! --export-config! --data --scores --checkpoint --mode ${batches} ${device}`,
    "verify <dir>": `--json --load --data ${batches} ${device}`,
  });
});
