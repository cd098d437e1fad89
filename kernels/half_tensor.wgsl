// 16-bit numbers from where they are stored to their places in a tensor, scaled: as float16 (HALF = 1) or float32 (HALF = 0).
//
//   out[outBase + r·outStride + c] = scaled(source[x·rowStride + y·columnStride])         r < rows, c < width
//
// where y = index[indexBase + c] and x = firstRow + r (indexed = 0), or x = index[indexBase + firstRow + r] and y = c
// (indexed = 1). source holds two patterns in each u32, the lower half first: binary16 (fractionBits = 10) or bfloat16 (7).
//
// HALF = 1: the number times 2^scale as binary16, two in each u32; outBase, outStride and width are even. What would be subnormal
// becomes zero, since an adapter may read it so; what is too large becomes the largest number.
// HALF = 0: the number times the float64 number 2^scale · (2^32 factorHigh + factorLow), 2^20 ≤ factorHigh < 2^21 or both
// zero, rounded as the host would: to 53 bits, then to float32, both to nearest even. Integers compute it, since WGSL has no
// float64 and lets adapters flush subnormal float32 numbers.
//
// Grid: one workgroup of 256 per 32×64 tile of (r, c), tiles along c fastest, folded into two dimensions. A tile is read along
// the side that is contiguous in source and written along c.
// Barriers: one, in uniform control flow.
// Cost: 2 bytes read, 2 or 4 written for each number.
// Precision: see above; the bits don't depend on the adapter.

override HALF: u32 = 1u;

struct Params {
  rows: u32,
  width: u32,
  firstRow: u32,
  rowStride: u32,
  columnStride: u32,
  indexed: u32,
  indexBase: u32,
  fractionBits: u32,
  outBase: u32,
  outStride: u32,
  // A signed number.
  scale: u32,
  factorHigh: u32,
  factorLow: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

const ROWS = 32u;
const COLUMNS = 64u;
// An odd stride: both ways of going through the tile touch different banks.
const STRIDE = COLUMNS + 1u;

// Patterns of the tile, row by row.
var<workgroup> tile: array<u32, ROWS * STRIDE>;

fn load(row: u32, column: u32) -> u32 {
  if (row >= params.rows || column >= params.width) {
    return 0u;
  }
  var x = params.firstRow + row;
  var y = column;
  if (params.indexed == 1u) {
    x = index[params.indexBase + x];
  } else {
    y = index[params.indexBase + y];
  }
  let at = x * params.rowStride + y * params.columnStride;
  return (source[at / 2u] >> (16u * (at % 2u))) & 0xffffu;
}

// significand · 2^exponent.
struct Number {
  significand: u32,
  exponent: i32,
}

fn magnitudeOf(pattern: u32) -> Number {
  let bits = params.fractionBits;
  let exponent = (pattern & 0x7fffu) >> bits;
  let fraction = pattern & ((1u << bits) - 1u);
  // The smallest number is 2^-24 in binary16 and 2^-133 in bfloat16.
  let smallest = select(-133, -24, bits == 10u);
  return Number(fraction | select(0u, 1u << bits, exponent > 0u), smallest + i32(max(exponent, 1u)) - 1);
}

const LARGEST_HALF = 0x7bffu;

// The bits of a binary16 number, zero or normal.
fn asHalf(pattern: u32) -> u32 {
  let sign = pattern & 0x8000u;
  let number = magnitudeOf(pattern);
  if (number.significand == 0u) {
    return sign;
  }
  let leading = firstLeadingBit(number.significand);
  let exponent = number.exponent + i32(leading) + bitcast<i32>(params.scale);
  if (exponent < -14) {
    return sign;
  }
  if (exponent > 15) {
    return sign | LARGEST_HALF;
  }
  let fraction = (number.significand << (10u - leading)) & 0x3ffu;
  return sign | (u32(exponent + 15) << 10u) | fraction;
}

// The bits of a float32 number.
fn asFloat(pattern: u32) -> u32 {
  let sign = (pattern & 0x8000u) << 16u;
  let number = magnitudeOf(pattern);
  if (number.significand == 0u || params.factorHigh == 0u) {
    return sign;
  }
  // The exact product of 11 and 53 bits, its leading bit moved to bit 63 of (high, low).
  let first = number.significand * (params.factorLow & 0xffffu);
  let second = number.significand * (params.factorLow >> 16u) + (first >> 16u);
  var high = number.significand * params.factorHigh + (second >> 16u);
  var low = (second << 16u) | (first & 0xffffu);
  let zeros = countLeadingZeros(high);
  if (zeros > 0u) {
    high = (high << zeros) | (low >> (32u - zeros));
    low = low << zeros;
  }
  var exponent = number.exponent + bitcast<i32>(params.scale) + 63 - i32(zeros);

  // To 53 bits, as a product of float64 numbers is.
  let rounded = low + 0x3ffu + ((low >> 11u) & 1u);
  if (rounded < low) {
    high += 1u;
    if (high == 0u) {
      high = 0x80000000u;
      exponent += 1;
    }
  }
  low = rounded & ~0x7ffu;

  // To float32: 24 bits, fewer where the number is subnormal.
  var biased = exponent + 127;
  if (biased > 254) {
    return sign | 0x7f800000u;
  }
  if (biased < 1) {
    let extra = u32(1 - biased);
    if (extra > 24u) {
      return sign;
    }
    low = select(0u, 1u, low != 0u || (high & ((1u << extra) - 1u)) != 0u);
    high = high >> extra;
    biased = 0;
  }
  let kept = (high >> 8u) & 0x7fffffu;
  let rest = high & 0xffu;
  let up = rest > 0x80u || (rest == 0x80u && (low != 0u || (kept & 1u) == 1u));
  return sign | ((u32(biased) << 23u) + kept + select(0u, 1u, up));
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) invocation: u32,
) {
  let across = (params.width + COLUMNS - 1u) / COLUMNS;
  let down = (params.rows + ROWS - 1u) / ROWS;
  let task = group.y * groups.x + group.x;
  if (task >= across * down) {
    return;
  }
  let row = (task / across) * ROWS;
  let column = (task % across) * COLUMNS;

  if (params.rowStride == 1u) {
    for (var i = invocation; i < ROWS * COLUMNS; i += 256u) {
      tile[(i % ROWS) * STRIDE + i / ROWS] = load(row + i % ROWS, column + i / ROWS);
    }
  } else {
    for (var i = invocation; i < ROWS * COLUMNS; i += 256u) {
      tile[(i / COLUMNS) * STRIDE + i % COLUMNS] = load(row + i / COLUMNS, column + i % COLUMNS);
    }
  }
  workgroupBarrier();

  if (HALF == 1u) {
    for (var i = invocation; i < ROWS * COLUMNS / 2u; i += 256u) {
      let r = i / (COLUMNS / 2u);
      let c = 2u * (i % (COLUMNS / 2u));
      if (row + r < params.rows && column + c < params.width) {
        let at = params.outBase + (row + r) * params.outStride + column + c;
        out[at / 2u] = asHalf(tile[r * STRIDE + c]) | (asHalf(tile[r * STRIDE + c + 1u]) << 16u);
      }
    }
    return;
  }
  for (var i = invocation; i < ROWS * COLUMNS; i += 256u) {
    let r = i / COLUMNS;
    let c = i % COLUMNS;
    if (row + r < params.rows && column + c < params.width) {
      out[params.outBase + (row + r) * params.outStride + column + c] = asFloat(tile[r * STRIDE + c]);
    }
  }
}
