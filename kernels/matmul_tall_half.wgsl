// The product of matmul_tall.wgsl, with at most 8 columns, where a is stored as float16 numbers in contiguous rows.
//
//   partial[s][x, y] = Σ_{k in chunk s} a[x, k] · b[y, k]          y < 8       (+ what was there, with accumulate = 1)
//
// a[x, k] is number aBase + x·aX + k of a times `unit` (the bits of a float32), two binary16 numbers in each u32, the lower
// half first; all but k divisible by 4, as is the number of k. b[y, k] lies at bBase + y·bY + k·bK; out[x, y] at
// outBase + s·outChunk + x·outX + y·outY.
//
// Grid: one workgroup of 256 per 128 rows and chunk of k, folded into two dimensions. Eight neighbouring invocations share
// four rows (32 apart) and take every eighth vector of them, 64 bytes at a time; b is staged 128 values of k at a time,
// padded with zeros to 8 columns.
// Barriers: two per 128 values of k and one before the eight partial sums are added, in uniform control flow.
// Precision: float32, chains of an eighth of a chunk, then eight terms.

struct Params {
  x: u32,
  y: u32,
  // The contraction runs over kStart ≤ k' < k.
  k: u32,
  kStart: u32,
  chunk: u32,
  chunks: u32,
  aBase: u32,
  aX: u32,
  bBase: u32,
  bY: u32,
  bK: u32,
  outBase: u32,
  outChunk: u32,
  outX: u32,
  outY: u32,
  accumulate: u32,
  unit: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec2u>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// Vectors of k that are staged for each column.
const STAGE = 32u;

var<workgroup> staged: array<vec4f, 8u * STAGE>;
// Partial sums of one group of 32 rows: eight columns, eight invocations, 32 rows.
var<workgroup> sums: array<f32, 2048>;

fn loadB(y: u32, k: u32, kEnd: u32) -> f32 {
  if (y < params.y && k < kEnd) {
    return b[params.bBase + y * params.bY + k * params.bK];
  }
  return 0.0;
}

struct Columns {
  low: vec4f,
  high: vec4f,
}

fn add(sum: Columns, value: vec4f, at: u32) -> Columns {
  let low = vec4f(
    dot(value, staged[at]),
    dot(value, staged[at + STAGE]),
    dot(value, staged[at + 2u * STAGE]),
    dot(value, staged[at + 3u * STAGE]),
  );
  let high = vec4f(
    dot(value, staged[at + 4u * STAGE]),
    dot(value, staged[at + 5u * STAGE]),
    dot(value, staged[at + 6u * STAGE]),
    dot(value, staged[at + 7u * STAGE]),
  );
  return Columns(sum.low + low, sum.high + high);
}

fn loadA(x: u32, k: u32, kEnd: u32) -> vec4f {
  if (x < params.x && k < kEnd) {
    let halves = a[(params.aBase + x * params.aX + k) / 4u];
    return bitcast<f32>(params.unit) * vec4f(unpack2x16float(halves.x), unpack2x16float(halves.y));
  }
  return vec4f();
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) invocation: u32,
) {
  let tilesX = (params.x + 127u) / 128u;
  let task = group.y * groups.x + group.x;
  let chunk = task / tilesX;
  if (chunk >= params.chunks) {
    return;
  }
  let firstX = (task % tilesX) * 128u;
  let kStart = params.kStart + chunk * params.chunk;
  let kEnd = min(kStart + params.chunk, params.k);
  let row = invocation / 8u;
  let lane = invocation % 8u;

  var rows: array<Columns, 4>;
  for (var stage = kStart; stage < kEnd; stage += 4u * STAGE) {
    workgroupBarrier();
    let y = invocation / STAGE;
    let k = stage + 4u * (invocation % STAGE);
    staged[invocation] = vec4f(loadB(y, k, kEnd), loadB(y, k + 1u, kEnd), loadB(y, k + 2u, kEnd), loadB(y, k + 3u, kEnd));
    workgroupBarrier();
    for (var vector = lane; vector < STAGE; vector += 8u) {
      let at = stage + 4u * vector;
      rows[0] = add(rows[0], loadA(firstX + row, at, kEnd), vector);
      rows[1] = add(rows[1], loadA(firstX + row + 32u, at, kEnd), vector);
      rows[2] = add(rows[2], loadA(firstX + row + 64u, at, kEnd), vector);
      rows[3] = add(rows[3], loadA(firstX + row + 96u, at, kEnd), vector);
    }
  }

  // The eight partial sums of each row and column, one group of 32 rows after the other: invocation (row, lane) then adds
  // up column `lane` of its row.
  for (var part = 0u; part < 4u; part++) {
    workgroupBarrier();
    let at = 64u * row + 8u * lane;
    sums[at] = rows[part].low.x;
    sums[at + 1u] = rows[part].low.y;
    sums[at + 2u] = rows[part].low.z;
    sums[at + 3u] = rows[part].low.w;
    sums[at + 4u] = rows[part].high.x;
    sums[at + 5u] = rows[part].high.y;
    sums[at + 6u] = rows[part].high.z;
    sums[at + 7u] = rows[part].high.w;
    workgroupBarrier();
    let first = 64u * row + lane;
    let sum = ((sums[first] + sums[first + 8u]) + (sums[first + 16u] + sums[first + 24u])) +
      ((sums[first + 32u] + sums[first + 40u]) + (sums[first + 48u] + sums[first + 56u]));
    let x = firstX + 32u * part + row;
    if (x < params.x && lane < params.y) {
      let index = params.outBase + chunk * params.outChunk + x * params.outX + lane * params.outY;
      if (params.accumulate == 1u) {
        out[index] += sum;
      } else {
        out[index] = sum;
      }
    }
  }
}
