/**
 * Conversions between float32 and the two 16-bit formats, on bit patterns (Deno's Float16Array and ONNX Runtime disagree,
 * so the patterns travel in Uint16Arrays). IEEE 754-2019 binary16, and bfloat16 (the upper half of a float32), both
 * rounding to nearest even.
 *
 * @module
 */

const scratch = new DataView(new ArrayBuffer(4));

/** binary16 bit patterns as float32 values. */
export function float16ToFloat32(bits: Uint16Array): Float32Array<ArrayBuffer> {
  // A plain loop over a table: `from` with a function first makes a list of its source, which takes more memory than the numbers.
  const table = halves ??= Float32Array.from({ length: 1 << 16 }, (_, pattern) => decodeHalf(pattern));
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) values[i] = table[bits[i]!]!;
  return values;
}

/** The values of all patterns, made at first use. */
let halves: Float32Array | undefined;

/** float32 values as binary16 bit patterns; what is too large becomes infinite. */
export function float32ToFloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  return encoded(values, encodeHalf);
}

/** bfloat16 bit patterns as float32 values. */
export function bfloat16ToFloat32(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const words = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) words[i] = bits[i]! << 16;
  return new Float32Array(words.buffer);
}

/** float32 values as bfloat16 bit patterns. */
export function float32ToBfloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  return encoded(values, (value) => {
    if (Number.isNaN(value)) return 0x7fc0;
    const word = floatBits(value);
    return (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  });
}

function encoded(values: Float32Array, encode: (value: number) => number): Uint16Array<ArrayBuffer> {
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) bits[i] = encode(values[i]!);
  return bits;
}

function floatBits(value: number): number {
  scratch.setFloat32(0, value);
  return scratch.getUint32(0);
}

function decodeHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function encodeHalf(value: number): number {
  const word = floatBits(value);
  const sign = (word >>> 16) & 0x8000;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00; // halfway to the next power of two rounds up to infinity
  if (magnitude < 2 ** -14) return sign | roundHalfToEven(magnitude * 2 ** 24); // subnormal; 1024 carries into the exponent
  const exponent = ((word >>> 23) & 0xff) - 127;
  return sign | (((exponent + 14) << 10) + roundHalfToEven(magnitude * 2 ** (10 - exponent)));
}

function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
