/** What tracing a network found. Sizes follow from how many channels each group keeps; the shim says no more than that. */
export interface NetworkFacts {
  readonly groups: readonly ChannelGroup[];
  /** Every parameter and persistent buffer. */
  readonly parameters: readonly NetworkParameter[];
  readonly operations: readonly Operation[];
  readonly layers: readonly NetworkLayer[];
}

/** Channels that exist together in every tensor that has them: one hyperparameter, unless the network's inputs or outputs fix them. */
export interface ChannelGroup {
  /** The modules whose outputs they are, in the network's order. */
  readonly outputs: readonly OutputModule[];
  readonly channels: number;
  /** Whether the channels are the network's own inputs or outputs, or pass where nothing can cut them. */
  readonly fixed: boolean;
  /** Equal stretches of the channels of which each keeps as many as the others, as a grouped convolution has them; 1 where there are none. */
  readonly sections: number;
  /** What consumers' weights say of each channel, higher = keep. */
  readonly importance: Float64Array;
}

/** A module and the kind of it that options go by, `nn.Conv2d` for one. */
export interface OutputModule {
  readonly module: string;
  readonly kind: string;
  readonly attribute: "out_channels" | "out_features";
}

/** A stretch of an axis: positions that stay whatever is cut, or channels of a group, each with so many positions in a row. */
export type AxisPart =
  | { readonly fixed: number }
  | { readonly group: number; readonly begin: number; readonly end: number; readonly repeat: number };

/** What lies behind each other along an axis. */
export type NetworkAxis = readonly AxisPart[];

/** A parameter, or a buffer that is stored with them. */
export interface NetworkParameter {
  readonly name: string;
  readonly axes: readonly NetworkAxis[];
  readonly isBuffer: boolean;
  /**
   * Blocks of the first axis, each of which has its own stretch of the second, as the filters of a grouped convolution have: that axis is
   * stated over all blocks, and the tensor is as long as one's. 1 where there are none.
   */
  readonly blocks: number;
}

/** The attributes of a module that count channels, and what along. */
export interface NetworkLayer {
  readonly module: string;
  readonly attributes: Readonly<Record<string, NetworkAxis>>;
}

/** A convolution, linear layer or matrix product: `factor` times the product of its axes' sizes is its multiply-accumulates. */
export interface Operation {
  readonly module: string;
  /** Positions of the output and of the kernel, for the dummy input; a fraction where convolutions are grouped. */
  readonly factor: number;
  readonly axes: readonly NetworkAxis[];
}
