import { expect, it } from "vitest";
import { buildProgram } from "../../../src/cli/program.js";

// Scripts depend on these: a flag that is added is added here, one that goes is a breaking change.
it("has exactly these commands and flags", () => {
  const surface = Object.fromEntries(
    buildProgram().commands.map((command) => [
      [
        command.name(),
        ...command.registeredArguments.map((argument) => (argument.required ? `<${argument.name()}>` : `[${argument.name()}]`)),
      ].join(" "),
      command.options.map(({ long, mandatory }) => (mandatory ? `${long}!` : long)).join(" "),
    ]),
  );
  const batches = "--seq-length --samples --batch-size";
  const device = "--device --dtype";
  const shim = "--attach --token-file --tls --tls-ca --tls-cert --tls-key --tls-server-name";
  const bounds = "--params --active-params --memory-mb --flops";
  const space =
    "--top-k --max-width-pruning --max-depth-pruning --hparams-to-skip --hidden-size-divisor --ffn-hidden-size-divisor " +
    "--mamba-head-dim-divisor --num-moe-experts-divisor --num-layers-divisor";
  const sources =
    "--data --scores --score-data --score-func --forward-loop --data-loader --collect-func --max-iter-data-loader --checkpoint";
  expect(surface).toEqual({
    "inspect <path>": "--json",
    "search <path>": `--json --scores --seq-length --batch-size ${bounds} ${space}`,
    "score [dir]": `--json --data! --out! ${batches} ${device} --tokenizer ${shim}`,
    "plan <path>": "--json --export-config! --scores --skip-sorting --out",
    "slice <dir>": `--json --plan! --out! --no-flush --layout --format --sha256 ${shim}`,
    "prune [dir]": `--json --out! --export-config ${sources} --metric-seq-length --metric-batch-size --mode --loss --uniform --feature-divisor --layout --like ${bounds} ${space} ${batches} ${device} --tokenizer ${shim}`,
    "verify <dir>": `--json --parent --rows --full --load --data ${batches} ${device} ${shim}`,
  });
});
