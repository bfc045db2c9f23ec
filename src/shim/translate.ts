import { type ServiceError, status } from "@grpc/grpc-js";
import { type ErrorCode, PruneError } from "../errors.js";
import { ErrorDetail, ErrorReason } from "../gen/prunebridge/v1/error.js";
import { hintOnConnection } from "./connectionHints.js";

const DETAIL_KEY = "prunebridge-error-bin";

const CODE_OF: Readonly<Record<ErrorReason, ErrorCode>> = {
  [ErrorReason.ERROR_REASON_UNSPECIFIED]: "INTERNAL",
  [ErrorReason.ERROR_REASON_INTERNAL]: "INTERNAL",
  [ErrorReason.ERROR_REASON_INVALID_REQUEST]: "INTERNAL",
  [ErrorReason.ERROR_REASON_PROTOCOL_MISMATCH]: "PROTOCOL_MISMATCH",
  [ErrorReason.ERROR_REASON_UNKNOWN_OPERATION]: "INTERNAL",
  [ErrorReason.ERROR_REASON_UNKNOWN_MODEL]: "INTERNAL",
  [ErrorReason.ERROR_REASON_UNKNOWN_MODULE]: "BAD_TENSOR",
  [ErrorReason.ERROR_REASON_BAD_TENSOR]: "BAD_TENSOR",
  [ErrorReason.ERROR_REASON_BAD_CHECKPOINT]: "SHIM_LOAD_FAILED",
  [ErrorReason.ERROR_REASON_BAD_DATA]: "BAD_DATA",
  [ErrorReason.ERROR_REASON_PATH_DENIED]: "PATH_DENIED",
  [ErrorReason.ERROR_REASON_PATH_NOT_FOUND]: "PATH_NOT_FOUND",
  [ErrorReason.ERROR_REASON_STORAGE_FULL]: "STORAGE_FULL",
  [ErrorReason.ERROR_REASON_STORAGE_FAILED]: "STORAGE_FAILED",
  [ErrorReason.ERROR_REASON_GPU_OOM]: "GPU_OOM",
  [ErrorReason.ERROR_REASON_RANK_LOST]: "RANK_LOST",
  [ErrorReason.ERROR_REASON_CANCELLED]: "CANCELLED",
  [ErrorReason.ERROR_REASON_MISSING_DEPENDENCY]: "MISSING_DEPENDENCY",
  [ErrorReason.ERROR_REASON_FEED_LOST]: "FEED_LOST",
  [ErrorReason.ERROR_REASON_SHUTTING_DOWN]: "SHIM_SHUTTING_DOWN",
  [ErrorReason.ERROR_REASON_PYTHON_DENIED]: "PYTHON_DENIED",
  [ErrorReason.ERROR_REASON_PYTHON_FAILED]: "PYTHON_FAILED",
  [ErrorReason.ERROR_REASON_UNAUTHENTICATED]: "UNAUTHENTICATED",
  [ErrorReason.ERROR_REASON_RIGHT_DENIED]: "RIGHT_DENIED",
  [ErrorReason.ERROR_REASON_LIMIT_EXCEEDED]: "LIMIT_EXCEEDED",
  [ErrorReason.ERROR_REASON_TARGET_BUSY]: "TARGET_BUSY",
  [ErrorReason.ERROR_REASON_SOURCE_CHANGED]: "SOURCE_CHANGED",
  [ErrorReason.UNRECOGNIZED]: "INTERNAL",
};

/** Turns a failed operation's detail into the error that users see. */
export function fromDetail(detail: ErrorDetail, cause?: unknown): PruneError {
  return new PruneError(CODE_OF[detail.reason] ?? "INTERNAL", detail.message, {
    ...(detail.hint !== "" && { hint: detail.hint }),
    ...(cause !== undefined && { cause }),
  });
}

/** Turns the reason named in a readiness line that reports a failure into an error code. */
export function codeOfReasonName(name: string): ErrorCode {
  const reason = ErrorReason[`ERROR_REASON_${name}` as keyof typeof ErrorReason];
  const code = reason === undefined ? undefined : CODE_OF[reason];
  return code === undefined || code === "INTERNAL" ? "SHIM_START_FAILED" : code;
}

/** Turns any failed call into the error that users see: the one place where gRPC's errors end. */
export function fromCallError(error: unknown): PruneError {
  if (error instanceof PruneError) return error;
  if (!isServiceError(error)) return new PruneError("INTERNAL", error instanceof Error ? error.message : String(error), { cause: error });
  const [packed] = error.metadata?.get(DETAIL_KEY) ?? [];
  if (packed instanceof Uint8Array) return fromDetail(ErrorDetail.decode(packed), error);
  switch (error.code) {
    case status.CANCELLED:
      return new PruneError("CANCELLED", "the call was cancelled", { cause: error });
    case status.DEADLINE_EXCEEDED:
      return new PruneError("SHIM_STALLED", `the shim did not answer in time (${error.details})`, { hint: "see its log", cause: error });
    case status.UNAVAILABLE:
      return new PruneError("SHIM_UNREACHABLE", `the shim cannot be reached: ${error.details}`, {
        hint: hintOnConnection(error.details),
        cause: error,
      });
    case status.RESOURCE_EXHAUSTED:
      return new PruneError("LIMIT_EXCEEDED", `a call is beyond what is taken at a time: ${error.details}`, {
        hint: "the shim's limits are in bridge.shim.limits",
        cause: error,
      });
    default:
      return new PruneError("INTERNAL", `the shim answered ${status[error.code] ?? error.code}: ${error.details}`, { cause: error });
  }
}

/** Whether a call may be tried again. */
export function isUnavailable(error: unknown): boolean {
  return isServiceError(error) && error.code === status.UNAVAILABLE && (error.metadata?.get(DETAIL_KEY).length ?? 0) === 0;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && typeof error.code === "number" && "details" in error;
}
