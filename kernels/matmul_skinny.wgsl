// Strided matrix product with at most 8 rows, limited by memory and not by arithmetic.
//
//   partial[s][x, y] = Σ_{k in chunk s} a[x, k] · b[y, k]          x < 8       (+ what was there, with accumulate = 1)
//
// a[x, k] lies at aBase + x·aX + k·aK; b[y, k] at bBase + (y / inner)·bOuterStride + (y % inner)·bInnerStride + k·bK;
// out[x, y] at outBase + s·outChunk + x·outX + (y / inner)·outOuterStride + (y % inner)·outInnerStride.
//
// Grid: one invocation per column y and chunk of k, 256 a workgroup, folded into two dimensions. Every element of b is
// read once, by neighbours from neighbouring addresses where bInnerStride = 1; a is staged 64 values of k at a time,
// padded with zeros to 8 rows.
// Barriers: two per 64 values of k, in uniform control flow.
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
  bInnerStride: u32,
  bK: u32,
  outBase: u32,
  outChunk: u32,
  outX: u32,
  outOuterStride: u32,
  outInnerStride: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
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

fn store(index: u32, x: u32, value: f32) {
  if (x >= params.x) {
    return;
  }
  if (params.accumulate == 1u) {
    out[index + x * params.outX] += value;
  } else {
    out[index + x * params.outX] = value;
  }
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) invocation: u32,
) {
  let tilesY = (params.y + 255u) / 256u;
  let task = group.y * groups.x + group.x;
  let chunk = task / tilesY;
  if (chunk >= params.chunks) {
    return;
  }
  let y = (task % tilesY) * 256u + invocation;
  let kStart = params.kStart + chunk * params.chunk;
  let kEnd = min(kStart + params.chunk, params.k);
  let outer = y / params.inner;
  let inner = y % params.inner;
  let column = params.bBase + outer * params.bOuterStride + inner * params.bInnerStride;

  var low = vec4f();
  var high = vec4f();
  for (var stage = kStart; stage < kEnd; stage += STAGE) {
    workgroupBarrier();
    if (invocation < 2u * STAGE) {
      let k = stage + invocation / 2u;
      let x = 4u * (invocation % 2u);
      staged[invocation] = vec4f(loadA(x, k, kEnd), loadA(x + 1u, k, kEnd), loadA(x + 2u, k, kEnd), loadA(x + 3u, k, kEnd));
    }
    workgroupBarrier();
    if (y < params.y) {
      // Four reads are under way at a time: one alone would leave the memory waiting.
      let count = min(STAGE, kEnd - stage);
      let quads = count - count % 4u;
      var j = 0u;
      for (; j < quads; j += 4u) {
        let at = column + (stage + j) * params.bK;
        let v0 = b[at];
        let v1 = b[at + params.bK];
        let v2 = b[at + 2u * params.bK];
        let v3 = b[at + 3u * params.bK];
        low = fma(staged[2u * j], vec4f(v0), low);
        high = fma(staged[2u * j + 1u], vec4f(v0), high);
        low = fma(staged[2u * j + 2u], vec4f(v1), low);
        high = fma(staged[2u * j + 3u], vec4f(v1), high);
        low = fma(staged[2u * j + 4u], vec4f(v2), low);
        high = fma(staged[2u * j + 5u], vec4f(v2), high);
        low = fma(staged[2u * j + 6u], vec4f(v3), low);
        high = fma(staged[2u * j + 7u], vec4f(v3), high);
      }
      for (; j < count; j++) {
        let value = vec4f(b[column + (stage + j) * params.bK]);
        low = fma(staged[2u * j], value, low);
        high = fma(staged[2u * j + 1u], value, high);
      }
    }
  }

  if (y < params.y) {
    let index = params.outBase + chunk * params.outChunk + outer * params.outOuterStride + inner * params.outInnerStride;
    store(index, 0u, low.x);
    store(index, 1u, low.y);
    store(index, 2u, low.z);
    store(index, 3u, low.w);
    store(index, 4u, high.x);
    store(index, 5u, high.y);
    store(index, 6u, high.z);
    store(index, 7u, high.w);
  }
}
