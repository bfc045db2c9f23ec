import { type AttachOptions, parseEndpoint } from "../shim/endpoint.js";
import type { SpawnOptions } from "../shim/process.js";
import { AttachedBridge } from "./attachedBridge.js";
import type { Bridge as AnyBridge } from "./bridge.js";
import type { LaunchOptions } from "./launch.js";
import { BridgeListener, type ListenOptions } from "./listener.js";
import { LaunchedBridge, SpawnedBridge } from "./ownBridge.js";

/** A connection to one shim, however it was made. */
export type Bridge = AnyBridge;

/** The ways to a shim. */
export const Bridge = {
  /**
   * Starts a shim on this machine. It ends with the bridge, and with this process however that ends.
   *
   * @throws PruneError SHIM_START_FAILED or MISSING_DEPENDENCY
   */
  spawn(options: SpawnOptions = {}): Promise<SpawnedBridge> {
    return SpawnedBridge.start(options);
  },

  /**
   * Launches a job for a checkpoint in Megatron-Core's layout, by torchrun on this machine: `bridge.attachedModel()` is its model. All ranks
   * end with the bridge, and with this process however that ends.
   *
   * @throws PruneError BAD_OPTION, SHIM_START_FAILED or MISSING_DEPENDENCY
   */
  launch(options: LaunchOptions): Promise<LaunchedBridge> {
    return LaunchedBridge.launch(options);
  },

  /**
   * Attaches to a shim that runs already, `python -m prunebridge_shim listen` for one. It sees the same storage under the same paths, and
   * goes on when the bridge is closed.
   *
   * @param address - `host:port`, `[ipv6]:port` or `unix:/path`
   * @throws PruneError BAD_OPTION, UNAUTHENTICATED, PROTOCOL_MISMATCH, SHIM_UNREACHABLE or SHIM_STALLED
   */
  async attach(address: string, options: AttachOptions): Promise<AnyBridge> {
    return AttachedBridge.over(await parseEndpoint(address, options), options.timeouts);
  },

  /**
   * Listens for a job that dials out, `prunebridge_shim.attach(model, dial=...)`, where its node takes no connections.
   *
   * @param address - `host:port` or `[ipv6]:port`; port 0: any that is free
   * @throws PruneError BAD_OPTION or PATH_NOT_FOUND
   */
  listen(address: string, options: ListenOptions): Promise<BridgeListener> {
    return BridgeListener.open(address, options, (endpoint, end) => AttachedBridge.over(endpoint, options.timeouts, end));
  },
};
