/**
 * The inner loop of the tridiagonal reduction as a WebAssembly function with 128-bit SIMD, encoded by hand: V8 doesn't vectorise
 * JavaScript, and this loop is nine tenths of an eigenproblem's time. It does, for four numbers a round:
 *
 *     a ← a − v_i·w − w_i·v        (the rank-two update of one row)
 *     sum += a·x,  p ← p + x_i·a   (both halves of the symmetric product with x)
 *
 * Encoding: WebAssembly core specification 2.0, section 5 (binary format).
 *
 * @module
 */

/** Byte offsets of the row's operands in memory, and how many bytes to go through: a multiple of 32. */
export type RankTwoRow = (
  a: number,
  v: number,
  w: number,
  x: number,
  p: number,
  bytes: number,
  vi: number,
  wi: number,
  xi: number,
) => number;

/** The kernel with a memory of its own. */
export interface RankTwoKernel {
  readonly memory: Float64Array;
  readonly row: RankTwoRow;
}

/** Numbers that one round of the loop takes. */
export const ROUND = 4;

const PAGE = 65536;
/** The largest memory of WebAssembly with 32-bit addresses, in pages. */
const MOST_PAGES = 65536;

let compiled: WebAssembly.Module | undefined;

/** A kernel whose memory holds `count` float64 numbers. */
export function rankTwoKernel(count: number): RankTwoKernel {
  const pages = Math.ceil(count * 8 / PAGE);
  if (pages > MOST_PAGES) throw new RangeError(`eigenproblem: ${count} numbers don't fit into 4 GiB of memory`);
  compiled ??= new WebAssembly.Module(moduleBytes());
  const memory = new WebAssembly.Memory({ initial: pages });
  const { exports } = new WebAssembly.Instance(compiled, { m: { m: memory } });
  return { memory: new Float64Array(memory.buffer, 0, count), row: exports["row"] as RankTwoRow };
}

const I32 = 0x7f, F64 = 0x7c, V128 = 0x7b;
/** Locals by index: nine parameters, then the end address, two sums, the splats, and the row's numbers. */
const A = 0, V = 1, W = 2, X = 3, P = 4, BYTES = 5, VI = 6, WI = 7, XI = 8;
const END = 9, SUM0 = 10, SUM1 = 11, SPLAT_V = 12, SPLAT_W = 13, SPLAT_X = 14, T = 15;
const POINTERS = [A, V, W, X, P];

const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const tee = (local: number): number[] => [0x22, local];
const i32 = (value: number): number[] => [0x41, value];
const ADD_I32 = [0x6a], LESS_I32 = [0x49], ADD_F64 = [0xa0];
/** SIMD instructions carry a prefix and their number in LEB128. */
const simd = (number: number): number[] => [0xfd, ...(number < 128 ? [number] : [(number & 127) | 128, number >> 7])];
/** Alignment hint 2³ (float64), and the offset. */
const load = (pointer: number, offset: number): number[] => [...get(pointer), ...simd(0x00), 3, offset];
const store = (offset: number): number[] => [...simd(0x0b), 3, offset];
const SPLAT = simd(0x14), ADD = simd(0xf0), SUB = simd(0xf1), MUL = simd(0xf2);
const lane = (index: number): number[] => [...simd(0x21), index];

/** Two numbers at an offset: update, both products. */
function pair(offset: number, sum: number): number[] {
  return [
    ...get(P),
    ...get(A),
    ...load(A, offset),
    ...[...get(SPLAT_V), ...load(W, offset), ...MUL, ...SUB],
    ...[...get(SPLAT_W), ...load(V, offset), ...MUL, ...SUB],
    ...tee(T),
    ...store(offset),
    ...[...get(sum), ...get(T), ...load(X, offset), ...MUL, ...ADD, ...set(sum)],
    ...[...load(P, offset), ...get(T), ...get(SPLAT_X), ...MUL, ...ADD],
    ...store(offset),
  ];
}

function moduleBytes(): Uint8Array<ArrayBuffer> {
  const splat = (from: number, to: number): number[] => [...get(from), ...SPLAT, ...set(to)];
  const body = [
    ...[...get(A), ...get(BYTES), ...ADD_I32, ...set(END)],
    ...splat(VI, SPLAT_V),
    ...splat(WI, SPLAT_W),
    ...splat(XI, SPLAT_X),
    0x02, // block
    0x40,
    ...[...get(BYTES), 0x45, 0x0d, 0], // nothing to do: leave the block
    0x03, // loop
    0x40,
    ...pair(0, SUM0),
    ...pair(16, SUM1),
    ...POINTERS.flatMap((pointer) => [...get(pointer), ...i32(32), ...ADD_I32, ...set(pointer)]),
    ...[...get(A), ...get(END), ...LESS_I32, 0x0d, 0],
    0x0b, // end loop
    0x0b, // end block
    ...[...get(SUM0), ...get(SUM1), ...ADD, ...tee(T), ...lane(0), ...get(T), ...lane(1), ...ADD_F64],
    0x0b,
  ];
  const locals = [2, 1, I32, 6, V128];
  const parameters = [I32, I32, I32, I32, I32, I32, F64, F64, F64];
  const code = vector([...locals, ...body]);
  return new Uint8Array([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, ...vector(parameters), ...vector([F64])]),
    ...section(2, [1, ...name("m"), ...name("m"), 0x02, 0x00, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name("row"), 0x00, 0]),
    ...section(10, [1, ...code]),
  ]);
}

/** Unsigned LEB128 of small numbers, then the bytes. */
const vector = (bytes: readonly number[]): number[] =>
  bytes.length < 128 ? [bytes.length, ...bytes] : [(bytes.length & 127) | 128, bytes.length >> 7, ...bytes];
const section = (id: number, bytes: readonly number[]): number[] => [id, ...vector(bytes)];
const name = (text: string): number[] => vector([...new TextEncoder().encode(text)]);
