import { constants, type IncomingHttpHeaders } from "node:http2";
import { Metadata, type ServiceError, status } from "@grpc/grpc-js";

const { NGHTTP2_CANCEL, NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_REFUSED_STREAM } = constants;

/** Where the gRPC protocol maps an HTTP status to more than UNKNOWN. */
const OF_HTTP: Readonly<Record<number, status>> = {
  400: status.INTERNAL,
  401: status.UNAUTHENTICATED,
  403: status.PERMISSION_DENIED,
  404: status.UNIMPLEMENTED,
  429: status.UNAVAILABLE,
  502: status.UNAVAILABLE,
  503: status.UNAVAILABLE,
  504: status.UNAVAILABLE,
};

const OF_RESET: Readonly<Record<number, status>> = {
  [NGHTTP2_REFUSED_STREAM]: status.UNAVAILABLE,
  [NGHTTP2_CANCEL]: status.CANCELLED,
  [NGHTTP2_ENHANCE_YOUR_CALM]: status.RESOURCE_EXHAUSTED,
};

/** What a call ends with that fails: the same as of grpc-js. */
export function callError(code: status, details: string, metadata = new Metadata()): ServiceError {
  return Object.assign(new Error(`${code} ${status[code]}: ${details}`), { code, details, metadata });
}

/** What the last headers of a call say; undefined where it succeeded. */
export function errorOfTrailers(headers: IncomingHttpHeaders, httpStatus: number | undefined): ServiceError | undefined {
  const { "grpc-status": stated, "grpc-message": message, ...rest } = headers;
  if (stated === undefined)
    return callError(OF_HTTP[httpStatus ?? 0] ?? status.UNKNOWN, `an answer without a status of gRPC, HTTP ${httpStatus}`);
  const code = Number(stated);
  return code === status.OK ? undefined : callError(code, decoded(String(message ?? "")), Metadata.fromHttp2Headers(rest));
}

/** What the end of a stream by RST_STREAM says. */
export function errorOfReset(code: number): ServiceError {
  return callError(OF_RESET[code] ?? status.INTERNAL, `the stream was reset with code ${code}`);
}

/** The text of a percent-encoded message; what is not encoded as it should be is left as it is. */
function decoded(message: string): string {
  try {
    return decodeURIComponent(message);
  } catch {
    return message;
  }
}
