/** What went wrong, as a closed list. Decide by the code; messages may change. */
export const ERROR_CODES = {
  // What the caller gave is wrong: nothing was started.
  PATH_NOT_FOUND: "input",
  NOT_A_CHECKPOINT: "input",
  BAD_CONFIG: "input",
  UNKNOWN_ARCHITECTURE: "input",
  BAD_INDEX: "input",
  BAD_SAFETENSORS: "input",
  BAD_TORCH_DIST: "input",
  UNKNOWN_TENSOR: "input",
  MISSING_TENSOR: "input",
  BAD_TENSOR: "input",
  BAD_SCORES: "input",
  BAD_PLAN: "input",
  BAD_EXPORT_CONFIG: "input",
  BAD_CONSTRAINTS: "input",
  BAD_MODE: "input",
  BAD_OPTION: "input",
  BAD_DATA: "input",
  CHECKPOINT_MISMATCH: "input",
  TARGET_EXISTS: "input",
  MISSING_DEPENDENCY: "input",
  SHIM_START_FAILED: "input",
  SHIM_LOAD_FAILED: "input",
  PATH_DENIED: "input",
  PYTHON_DENIED: "input",
  UNAUTHENTICATED: "input",
  RIGHT_DENIED: "input",
  TARGET_BUSY: "input",
  UNSUPPORTED_QUANTIZATION: "input",
  // The work was right and did not succeed.
  VERIFY_FAILED: "failure",
  CANCELLED: "failure",
  SHIM_DIED: "failure",
  SHIM_UNREACHABLE: "failure",
  SHIM_STALLED: "failure",
  SHIM_RESTARTED: "failure",
  SHIM_SHUTTING_DOWN: "failure",
  PROTOCOL_MISMATCH: "failure",
  FEED_LOST: "failure",
  PYTHON_FAILED: "failure",
  LIMIT_EXCEEDED: "failure",
  SOURCE_CHANGED: "failure",
  GPU_OOM: "failure",
  RANK_LOST: "failure",
  STORAGE_FULL: "failure",
  STORAGE_FAILED: "failure",
  INTERNAL: "failure",
} as const;

/** A member of {@link ERROR_CODES}. */
export type ErrorCode = keyof typeof ERROR_CODES;

// What an error quotes of a file may be as long as the file.
const MAX_DETAIL = 16_000;

/** The single error type that prunebridge throws. */
export class PruneError extends Error {
  override readonly name = "PruneError";
  /** What kind of thing went wrong. */
  readonly code: ErrorCode;
  /** The error's text without its code. */
  readonly detail: string;
  /** The next step for the reader; may be empty. */
  readonly hint: string;

  /**
   * @param code - what kind of thing went wrong
   * @param detail - what is wrong, where, and what would be right
   * @param options - `hint`: the next step; `cause`: the error underneath
   */
  constructor(code: ErrorCode, detail: string, options: { hint?: string; cause?: unknown } = {}) {
    const [shownDetail, hint] = [shorten(detail), shorten(options.hint ?? "")];
    super(`[${code}] ${shownDetail}${hint ? `\n  hint: ${hint}` : ""}`, { cause: options.cause });
    this.code = code;
    this.detail = shownDetail;
    this.hint = hint;
  }

  /** `input` where the caller has to change something, `failure` where right work did not succeed. */
  get kind(): "input" | "failure" {
    return ERROR_CODES[this.code];
  }
}

/** Both ends of a long text: where something is wrong stands at its beginning, what would be right at its end. */
function shorten(text: string): string {
  return text.length <= MAX_DETAIL ? text : `${text.slice(0, MAX_DETAIL / 2)} [...] ${text.slice(-MAX_DETAIL / 2)}`;
}
