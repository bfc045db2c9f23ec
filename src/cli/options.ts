import { Command, InvalidArgumentError, Option } from "commander";
import { BATCH_DEFAULTS, type BatchShape, type OpenOptions, PruneError, parseJsonObject, readJsonObject } from "../index.js";

/** Flags that choose how a model runs. */
export type DeviceFlags = Required<Pick<OpenOptions, "device" | "dtype">>;

/** Flags that choose the shim: one of its own, or one that runs already. */
export interface ShimFlags {
  readonly attach?: string;
  readonly tokenFile?: string;
  readonly tls?: boolean;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsServerName?: string;
}

/** A subcommand with what all of them share. */
export function command(name: string, summary: string): Command {
  return new Command(name).summary(summary).description(summary).option("--json", "print one JSON object on stdout, for scripts");
}

/** `--device` and `--dtype`. */
export function withDeviceFlags(to: Command): Command {
  return to
    .addOption(new Option("--device <device>", "where the model runs: auto, cpu, cuda, cuda:1, ...").default("auto"))
    .addOption(
      new Option("--dtype <dtype>", "what the model runs in; auto: as the checkpoint has it")
        .choices(["auto", "float32", "bfloat16", "float16"])
        .default("auto"),
    );
}

/** `--attach` and what goes with it. */
export function withShimFlags(to: Command): Command {
  return to
    .option("--attach <address>", "use the shim that listens at host:port or unix:/path instead of starting one")
    .option("--token-file <file>", "the file with the token of that shim")
    .option("--tls", "speak TLS with it, by the certificate authorities that Node.js knows")
    .option("--tls-ca <file>", "speak TLS with it, by these certificate authorities")
    .option("--tls-cert <file>", "the certificate to prove oneself with")
    .option("--tls-key <file>", "its key")
    .option("--tls-server-name <name>", "the name that the shim's certificate is for, where that is not the host's");
}

/** `--tokenizer`. */
export function withTokenizerFlag(to: Command): Command {
  return to.option("--tokenizer <dir>", "attached to a job: the folder of its tokenizer, for data that are text");
}

/** `--seq-length`, `--samples` and `--batch-size`. */
export function withBatchFlags(to: Command): Command {
  return to
    .option(
      "--seq-length <tokens>",
      `tokens of a sequence cut from text (default: ${BATCH_DEFAULTS.seqLength}, or what the model takes)`,
      positiveInteger,
    )
    .option("--samples <n>", "sequences to use at most", positiveInteger, BATCH_DEFAULTS.samples)
    .option("--batch-size <n>", "sequences of a batch", positiveInteger, BATCH_DEFAULTS.batchSize);
}

/** The shape of batches by the flags and what the model takes. */
export function batchShape(
  flags: { seqLength?: number; samples: number; batchSize: number },
  config: Readonly<Record<string, unknown>>,
): BatchShape {
  const most = config["max_position_embeddings"];
  const fitting = typeof most === "number" ? Math.min(BATCH_DEFAULTS.seqLength, most) : BATCH_DEFAULTS.seqLength;
  return { seqLength: flags.seqLength ?? fitting, samples: flags.samples, batchSize: flags.batchSize };
}

/** An export_config given as JSON or as the path of a JSON file. Throws BAD_EXPORT_CONFIG or PATH_NOT_FOUND. */
export async function readExportConfig(given: string): Promise<unknown> {
  if (given.trimStart().startsWith("{")) return parseJsonObject(given, "--export-config", "BAD_EXPORT_CONFIG");
  return readJsonObject(given, "BAD_EXPORT_CONFIG").catch((error: unknown) => {
    if (!(error instanceof PruneError) || error.code !== "PATH_NOT_FOUND") throw error;
    throw new PruneError(error.code, error.detail, {
      hint: `--export-config takes a file, or JSON such as '{"ffn_hidden_size": 9216}'`,
      cause: error,
    });
  });
}

/** A flag's value that has to be a positive integer. */
export function positiveInteger(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("it must be a positive integer.");
}
