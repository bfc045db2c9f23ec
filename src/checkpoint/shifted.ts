import { PruneError } from "../errors.js";
import type { Dtype } from "../tensor.js";

/** Element types to whose elements a constant can be added: bits of the fraction, and the least exponent of a normal number. */
const NARROW = { F16: { fraction: 10, least: -14, bias: 15 }, BF16: { fraction: 7, least: -126, bias: 127 } } as const;

/**
 * Adds a constant to every element; the sum is rounded once, to the nearest even.
 *
 * @throws PruneError VERIFY_FAILED for an element type that is no F16, BF16, F32 or F64
 */
export function shifted(bytes: Buffer, dtype: Dtype, shift: number): Buffer {
  const out = Buffer.allocUnsafeSlow(bytes.length);
  if (dtype === "F64") for (let at = 0; at < bytes.length; at += 8) out.writeDoubleLE(bytes.readDoubleLE(at) + shift, at);
  else if (dtype === "F32") for (let at = 0; at < bytes.length; at += 4) out.writeFloatLE(bytes.readFloatLE(at) + shift, at);
  else if (dtype === "F16" || dtype === "BF16")
    for (let at = 0; at < bytes.length; at += 2) out.writeUInt16LE(encode(decode(bytes.readUInt16LE(at), dtype) + shift, dtype), at);
  else throw new PruneError("VERIFY_FAILED", `elements of ${dtype} cannot be shifted by ${shift}`);
  return out;
}

function decode(bits: number, dtype: keyof typeof NARROW): number {
  const { fraction, least, bias } = NARROW[dtype];
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits & 0x7fff) >> fraction;
  const mantissa = bits & ((1 << fraction) - 1);
  if (exponent === 2 * bias + 1) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** (least - fraction);
  return sign * (mantissa + 2 ** fraction) * 2 ** (exponent - bias - fraction);
}

function encode(value: number, dtype: keyof typeof NARROW): number {
  const { fraction, least, bias } = NARROW[dtype];
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const infinity = (2 * bias + 1) << fraction;
  if (Number.isNaN(value)) return sign | infinity | (1 << (fraction - 1));
  const magnitude = Math.abs(value);
  const exponent = Math.max(least, exponentOf(magnitude));
  const quanta = roundToEven(magnitude / 2 ** (exponent - fraction));
  // Of a normal number the quanta count the implicit bit, which adds one to the exponent; one that rounding carries adds another.
  return sign | Math.min(infinity, ((exponent + bias - 1) << fraction) + quanta);
}

/** Of a number below the least normal one this is low enough for whoever takes the larger of both. */
function exponentOf(magnitude: number): number {
  const bits = new DataView(new ArrayBuffer(8));
  bits.setFloat64(0, magnitude);
  return (bits.getUint16(0) >> 4) - 1023;
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0);
}
