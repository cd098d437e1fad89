// The product of matmul_skinny.wgsl, with at most 8 rows, where b is stored as float16 numbers.
//
//   partial[s][x, y] = Σ_{k in chunk s} a[x, k] · b[y, k]          x < 8       (+ what was there, with accumulate = 1)
//
// a[x, k] lies at aBase + x·aX + k·aK. b[y, k] is number bBase + (y / inner)·bOuterStride + y % inner + k·bK of b times
// `unit` (the bits of a float32), two binary16 numbers in each u32, the lower half first; inner, y and all of these offsets
// but y % inner are divisible by 4. out[x, y] lies at outBase + s·outChunk + x·outX + (y / inner)·outOuterStride
// + (y % inner)·outInnerStride.
//
// Grid: one invocation per four columns y and chunk of k, 256 a workgroup, folded into two dimensions. Every element of b
// is read once, four together, by neighbours from neighbouring addresses; a is staged 64 values of k at a time, padded with
// zeros to 8 rows.
// Barriers: two per 64 values of k, in uniform control flow.
// Cost: 2 bytes of b for 8 multiply-adds; 8 bytes a read, two reads under way at a time.
// Precision: float32 with fma, one chain per chunk; the host bounds the chunk's length.

struct Params {
  x: u32,
  y: u32,
  // The contraction runs over kStart ≤ k' < k.
  k: u32,
  kStart: u32,
  chunk: u32,
  chunks: u32,
  inner: u32,
  aBase: u32,
  aX: u32,
  aK: u32,
  bBase: u32,
  bOuterStride: u32,
  bK: u32,
  outBase: u32,
  outChunk: u32,
  outX: u32,
  outOuterStride: u32,
  outInnerStride: u32,
  accumulate: u32,
  unit: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<vec2u>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

const STAGE = 64u;

// Rows 0 to 3 of a at [2k], rows 4 to 7 at [2k + 1].
var<workgroup> staged: array<vec4f, 2u * STAGE>;

fn loadA(x: u32, k: u32, kEnd: u32) -> f32 {
  if (x < params.x && k < kEnd) {
    return a[params.aBase + x * params.aX + k * params.aK];
  }
  return 0.0;
}

fn widen(halves: vec2u) -> vec4f {
  return vec4f(unpack2x16float(halves.x), unpack2x16float(halves.y));
}

// Adds the product of eight rows at one k with four columns: row r in sums[r].
fn multiplyAdd(sums: ptr<function, array<vec4f, 8>>, at: u32, columns: vec4f) {
  let low = staged[at];
  let high = staged[at + 1u];
  (*sums)[0] = fma(vec4f(low.x), columns, (*sums)[0]);
  (*sums)[1] = fma(vec4f(low.y), columns, (*sums)[1]);
  (*sums)[2] = fma(vec4f(low.z), columns, (*sums)[2]);
  (*sums)[3] = fma(vec4f(low.w), columns, (*sums)[3]);
  (*sums)[4] = fma(vec4f(high.x), columns, (*sums)[4]);
  (*sums)[5] = fma(vec4f(high.y), columns, (*sums)[5]);
  (*sums)[6] = fma(vec4f(high.z), columns, (*sums)[6]);
  (*sums)[7] = fma(vec4f(high.w), columns, (*sums)[7]);
}

fn store(index: u32, value: f32) {
  if (params.accumulate == 1u) {
    out[index] += value;
  } else {
    out[index] = value;
  }
}

fn storeRow(index: u32, x: u32, values: vec4f) {
  if (x >= params.x) {
    return;
  }
  let row = index + x * params.outX;
  store(row, values.x);
  store(row + params.outInnerStride, values.y);
  store(row + 2u * params.outInnerStride, values.z);
  store(row + 3u * params.outInnerStride, values.w);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) invocation: u32,
) {
  let tilesY = (params.y + 1023u) / 1024u;
  let task = group.y * groups.x + group.x;
  let chunk = task / tilesY;
  if (chunk >= params.chunks) {
    return;
  }
  let y = (task % tilesY) * 1024u + 4u * invocation;
  let kStart = params.kStart + chunk * params.chunk;
  let kEnd = min(kStart + params.chunk, params.k);
  let outer = y / params.inner;
  let inner = y % params.inner;
  let column = (params.bBase + outer * params.bOuterStride + inner) / 4u;
  let step = params.bK / 4u;

  var sums: array<vec4f, 8>;
  for (var stage = kStart; stage < kEnd; stage += STAGE) {
    workgroupBarrier();
    if (invocation < 2u * STAGE) {
      let k = stage + invocation / 2u;
      let x = 4u * (invocation % 2u);
      staged[invocation] = vec4f(loadA(x, k, kEnd), loadA(x + 1u, k, kEnd), loadA(x + 2u, k, kEnd), loadA(x + 3u, k, kEnd));
    }
    workgroupBarrier();
    if (y < params.y) {
      let count = min(STAGE, kEnd - stage);
      let pairs = count - count % 2u;
      var j = 0u;
      for (; j < pairs; j += 2u) {
        let at = column + (stage + j) * step;
        let even = b[at];
        let odd = b[at + step];
        multiplyAdd(&sums, 2u * j, widen(even));
        multiplyAdd(&sums, 2u * j + 2u, widen(odd));
      }
      if (j < count) {
        multiplyAdd(&sums, 2u * j, widen(b[column + (stage + j) * step]));
      }
    }
  }

  if (y < params.y) {
    let unit = bitcast<f32>(params.unit);
    let index = params.outBase + chunk * params.outChunk + outer * params.outOuterStride + inner * params.outInnerStride;
    storeRow(index, 0u, unit * sums[0]);
    storeRow(index, 1u, unit * sums[1]);
    storeRow(index, 2u, unit * sums[2]);
    storeRow(index, 3u, unit * sums[3]);
    storeRow(index, 4u, unit * sums[4]);
    storeRow(index, 5u, unit * sums[5]);
    storeRow(index, 6u, unit * sums[6]);
    storeRow(index, 7u, unit * sums[7]);
  }
}
