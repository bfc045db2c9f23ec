import type { ForwardArgs } from "../data/args.js";
import { toNetworkBatch } from "../data/networkArgs.js";
import { toBatches } from "../data/toBatches.js";
import type { RunOptions } from "../progress.js";
import { type CalibratedNorms, calibrateNorms } from "../shim/networkWork.js";
import { checkPython } from "../shim/runWork.js";
import type { ShimSession } from "../shim/session.js";
import { asksOfBatches } from "../shim/wire.js";
import { RunningLoop } from "./loop.js";
import { handled } from "./loopCalls.js";
import type { LoopNetwork, NetworkLoop, NormsSource } from "./runnableNetwork.js";

/** Calibrates the normalisation layers of an open network over whatever brings batches. */
export async function calibrateBy(
  session: ShimSession,
  modelId: string,
  source: NormsSource,
  options: RunOptions,
): Promise<CalibratedNorms> {
  if (typeof source === "function") return calibrateByLoop(session, modelId, source, options);
  if ("forwardLoop" in source || "dataLoader" in source) {
    checkPython(session, source);
    return calibrateNorms(session, modelId, source, options);
  }
  return calibrateNorms(session, modelId, asksOfBatches(toBatches(source, { toBatch: toNetworkBatch })), options);
}

async function calibrateByLoop(session: ShimSession, modelId: string, source: NetworkLoop, options: RunOptions): Promise<CalibratedNorms> {
  const loop = new RunningLoop<LoopNetwork>(source, (calls) => {
    const forward = async (args: ForwardArgs): Promise<void> => calls.give((where) => toNetworkBatch(args, where));
    return { forward: (args) => handled(forward(args)) };
  });
  try {
    const calibrated = await calibrateNorms(session, modelId, loop.asks, options);
    loop.close();
    return calibrated;
  } catch (error) {
    loop.close(error);
    throw error;
  }
}
