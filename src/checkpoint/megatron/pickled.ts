/** A class or function by its full name, such as `torch.bfloat16`: never looked up, only named. */
export class PickledName {
  constructor(readonly name: string) {}
}

/** What calling a class and setting its state would have made: recorded, not done. */
export class PickledObject {
  state: Pickled = null;
  /** What was set by key, for dictionaries of a class of their own. */
  readonly entries = new Map<Pickled, Pickled>();

  constructor(
    /** The class's full name; {@link PERSISTENT} for what lies outside of the pickle. */
    readonly name: string,
    readonly args: readonly Pickled[],
  ) {}
}

/** The name of objects that a pickle refers to by an id of its writer's: torch's storages. Their only argument is the id. */
export const PERSISTENT = "(persistent)";

/** A value of a pickle. Tuples and lists are both arrays, sets too. */
export type Pickled =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Pickled[]
  | Map<Pickled, Pickled>
  | PickledName
  | PickledObject;

/** Where a group of values begins on the stack. */
export const MARK = Symbol("mark");
