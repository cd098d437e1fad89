// Sums of squares of 16-bit numbers, by the exponent of the numbers, without any rounding.
//
// A pattern's magnitude is s · 2^(max(E, 1) − 1) in units of the format's smallest number, with s the fraction (E = 0) or
// 2^F + the fraction, F = 10 for binary16 and 7 for bfloat16. Its class is the place of its leading bit; numbers that aren't
// finite have the class behind all others, and count 1.
//
//   bins[binBase + 4c ..] (+)= Σ s² over the numbers of class c, as w0 + 2^16 w1 + 2^11 (w2 + 2^16 w3)
//
// Number (i, j), i < slow and j < fast, is pattern x·slowStride + y·fastStride of source, two in each u32, the lower half
// first, where y = index[indexBase + j] and x = i (indexed = 0), or x = index[indexBase + i] and y = j (indexed = 1).
//
// Grid: `groups` workgroups of 256, folded into two dimensions; invocation i of all takes numbers i, i + total, … with j
// running fastest. No more than 2^21 numbers to a workgroup and no more than 2^16 workgroups: then no word overflows.
// Barriers: two, in uniform control flow.
// Cost: 2 bytes read, two atomic additions in workgroup memory for each number.
// Precision: exact; sums of integers don't depend on their order.

struct Params {
  slow: u32,
  fast: u32,
  slowStride: u32,
  fastStride: u32,
  indexed: u32,
  indexBase: u32,
  // F.
  fractionBits: u32,
  binBase: u32,
  groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
@group(0) @binding(3) var<storage, read_write> bins: array<atomic<u32>>;

// bfloat16 has the most classes: 261 and one that isn't finite.
const CLASSES = 262u;

// Lower 11 bits of s², and the rest, of each class.
var<workgroup> sums: array<atomic<u32>, 2u * CLASSES>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) invocation: u32,
) {
  let task = group.y * groups.x + group.x;
  if (task >= params.groups) {
    return;
  }
  for (var i = invocation; i < 2u * CLASSES; i += 256u) {
    atomicStore(&sums[i], 0u);
  }
  workgroupBarrier();

  let bits = params.fractionBits;
  let count = params.slow * params.fast;
  for (var i = task * 256u + invocation; i < count; i += params.groups * 256u) {
    var x = i / params.fast;
    var y = i % params.fast;
    if (params.indexed == 1u) {
      x = index[params.indexBase + x];
    } else {
      y = index[params.indexBase + y];
    }
    let at = x * params.slowStride + y * params.fastStride;
    let magnitude = (source[at / 2u] >> (16u * (at % 2u))) & 0x7fffu;
    if (magnitude == 0u) {
      continue;
    }
    let exponent = magnitude >> bits;
    let fraction = magnitude & ((1u << bits) - 1u);
    let largest = 0x7fffu >> bits;
    var bin = firstLeadingBit(fraction);
    var square = fraction * fraction;
    if (exponent == largest) {
      bin = bits + largest - 1u;
      square = 1u;
    } else if (exponent > 0u) {
      let significand = fraction | (1u << bits);
      bin = bits + exponent - 1u;
      square = significand * significand;
    }
    atomicAdd(&sums[2u * bin], square & 0x7ffu);
    atomicAdd(&sums[2u * bin + 1u], square >> 11u);
  }
  workgroupBarrier();

  for (var i = invocation; i < 2u * CLASSES; i += 256u) {
    let sum = atomicLoad(&sums[i]);
    if (sum != 0u) {
      atomicAdd(&bins[params.binBase + 2u * i], sum & 0xffffu);
      atomicAdd(&bins[params.binBase + 2u * i + 1u], sum >> 16u);
    }
  }
}
