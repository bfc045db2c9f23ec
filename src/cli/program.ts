import { Command } from "commander";
import { VERSION } from "../index.js";
import { inspectCommand } from "./commands/inspect.js";
import { planCommand } from "./commands/plan.js";
import { pruneCommand } from "./commands/prune.js";
import { scoreCommand } from "./commands/score.js";
import { searchCommand } from "./commands/search.js";
import { sliceCommand } from "./commands/slice.js";
import { verifyCommand } from "./commands/verify.js";

/** The command line, stage by stage: inspect, score, plan, slice, verify, and prune, which runs them all. */
export function buildProgram(): Command {
  const program = new Command("prunebridge")
    .description("prune large language models: score activations, plan, and slice safetensors checkpoints")
    .version(VERSION)
    .showHelpAfterError("(--help tells more)");
  for (const command of [
    inspectCommand(),
    searchCommand(),
    scoreCommand(),
    planCommand(),
    sliceCommand(),
    pruneCommand(),
    verifyCommand(),
  ]) {
    program.addCommand(command.exitOverride().showHelpAfterError("(--help tells more)"));
  }
  return program.exitOverride();
}
