// Strided matrix product with a blocked contraction, tiled in workgroup memory and register blocked.
//
//   partial[s][x, y] = Σ_{k in chunk s} a[x, k] · b[y, k]          (+ what was there, with accumulate = 1)
//
// Operands are views of dense arrays, so that mode products, Gram matrices and transposed products need no copies.
// Element (x, k) of operand o lies at base + (x / inner)·outerStride + (x % inner)·innerStride
//                                       + (k / kInner)·kOuterStride + (k % kInner)·kInnerStride.
// Element (x, y) of the result lies at outBase + s·outChunk + x·outX + (y / inner)·outOuterStride
//                                       + (y % inner)·outInnerStride, with the `inner` of b.
// `load` says how a 4×4 block of it may be read (chosen on the host, see src/gpu/operand.ts):
//   0 one number at a time: any strides and alignment
//   1 vectors along x: innerStride = 1, all else divisible by 4
//   2 vectors along k: kInnerStride = 1, all else divisible by 4
//
// Grid: one workgroup of T×T invocations per 8T×8T tile of the result and chunk of k; tile x fastest, so that the
// workgroups that run together share the columns of b. The grid is folded into two dimensions (65535 limit).
// Each step stages T values of k: 2T² vectors per operand, one 4×4 block per invocation (half load a, half load b).
// Invocation (tx, ty) computes rows 4ty.. and 4(T + ty).. by columns 4tx.. and 4(T + tx)..: 64 sums in registers.
// Barriers: two a step, in uniform control flow. The next block is read while the present one is multiplied.
// Precision: float32 with fma, one chain per chunk; the host bounds the chunk's length and adds chunks pairwise.

override T: u32 = 16u;

struct Operand {
  base: u32,
  count: u32,
  inner: u32,
  outerStride: u32,
  innerStride: u32,
  kOuterStride: u32,
  kInnerStride: u32,
  load: u32,
}

struct Params {
  a: Operand,
  b: Operand,
  // The contraction runs over kStart ≤ k' < k.
  k: u32,
  kStart: u32,
  kInner: u32,
  chunk: u32,
  chunks: u32,
  outBase: u32,
  outX: u32,
  outOuterStride: u32,
  outInnerStride: u32,
  outChunk: u32,
  accumulate: u32,
  // Skips tiles strictly below the diagonal (a symmetric result, of which the host reads the upper triangle).
  upperOnly: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4f>;
@group(0) @binding(2) var<storage, read> b: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// Both staged tiles, a then b: T rows (k) of 2T vectors (x). Within row k a vector stands at its column xor 2⌊k/4⌋,
// which keeps both ways of writing (along x, along k) free of bank conflicts.
var<workgroup> tiles: array<vec4f, 4u * T * T>;

// What one invocation loads at every step: four rows of k by four of x, of one operand.
struct Block {
  // Offsets of its four x.
  x: vec4u,
  // How many of them exist.
  valid: u32,
  // k of its first row, and the same split by kInner.
  k: u32,
  kOuter: u32,
  kInner: u32,
}

fn fetch(isB: bool, index: u32) -> vec4f {
  if (isB) {
    return b[index];
  }
  return a[index];
}

fn fetchOne(isB: bool, index: u32) -> f32 {
  if (isB) {
    return b[index / 4u][index % 4u];
  }
  return a[index / 4u][index % 4u];
}

// Column j of the result holds the four x at k + j; zero outside the operand or the chunk.
fn loadBlock(isB: bool, o: Operand, block: Block, kEnd: u32) -> mat4x4f {
  var rows = mat4x4f();
  if (o.load == 1u) {
    let start = block.x.x + block.kOuter * o.kOuterStride + block.kInner * o.kInnerStride;
    if (block.valid > 0u) {
      if (block.k < kEnd) {
        rows[0] = fetch(isB, start / 4u);
      }
      if (block.k + 1u < kEnd) {
        rows[1] = fetch(isB, (start + o.kInnerStride) / 4u);
      }
      if (block.k + 2u < kEnd) {
        rows[2] = fetch(isB, (start + 2u * o.kInnerStride) / 4u);
      }
      if (block.k + 3u < kEnd) {
        rows[3] = fetch(isB, (start + 3u * o.kInnerStride) / 4u);
      }
    }
    return rows;
  }
  if (o.load == 2u) {
    let start = block.kOuter * o.kOuterStride + block.kInner;
    if (block.k < kEnd) {
      if (block.valid > 0u) {
        rows[0] = fetch(isB, (block.x.x + start) / 4u);
      }
      if (block.valid > 1u) {
        rows[1] = fetch(isB, (block.x.y + start) / 4u);
      }
      if (block.valid > 2u) {
        rows[2] = fetch(isB, (block.x.z + start) / 4u);
      }
      if (block.valid > 3u) {
        rows[3] = fetch(isB, (block.x.w + start) / 4u);
      }
    }
    return transpose(rows);
  }
  for (var j = 0u; j < 4u; j++) {
    let k = block.k + j;
    if (k < kEnd) {
      let start = (k / params.kInner) * o.kOuterStride + (k % params.kInner) * o.kInnerStride;
      var row = vec4f();
      if (block.valid > 0u) {
        row.x = fetchOne(isB, block.x.x + start);
      }
      if (block.valid > 1u) {
        row.y = fetchOne(isB, block.x.y + start);
      }
      if (block.valid > 2u) {
        row.z = fetchOne(isB, block.x.z + start);
      }
      if (block.valid > 3u) {
        row.w = fetchOne(isB, block.x.w + start);
      }
      rows[j] = row;
    }
  }
  return rows;
}

fn offsetsOf(o: Operand, x: u32) -> vec4u {
  let all = vec4u(x, x + 1u, x + 2u, x + 3u);
  return o.base + (all / o.inner) * o.outerStride + (all % o.inner) * o.innerStride;
}

// The outer product of eight rows and eight columns, added to the sums: row r in sums[2r] and sums[2r + 1].
fn multiplyAdd(sums: ptr<function, array<vec4f, 16>>, a0: vec4f, a1: vec4f, b0: vec4f, b1: vec4f) {
  (*sums)[0] = fma(vec4f(a0.x), b0, (*sums)[0]);
  (*sums)[1] = fma(vec4f(a0.x), b1, (*sums)[1]);
  (*sums)[2] = fma(vec4f(a0.y), b0, (*sums)[2]);
  (*sums)[3] = fma(vec4f(a0.y), b1, (*sums)[3]);
  (*sums)[4] = fma(vec4f(a0.z), b0, (*sums)[4]);
  (*sums)[5] = fma(vec4f(a0.z), b1, (*sums)[5]);
  (*sums)[6] = fma(vec4f(a0.w), b0, (*sums)[6]);
  (*sums)[7] = fma(vec4f(a0.w), b1, (*sums)[7]);
  (*sums)[8] = fma(vec4f(a1.x), b0, (*sums)[8]);
  (*sums)[9] = fma(vec4f(a1.x), b1, (*sums)[9]);
  (*sums)[10] = fma(vec4f(a1.y), b0, (*sums)[10]);
  (*sums)[11] = fma(vec4f(a1.y), b1, (*sums)[11]);
  (*sums)[12] = fma(vec4f(a1.z), b0, (*sums)[12]);
  (*sums)[13] = fma(vec4f(a1.z), b1, (*sums)[13]);
  (*sums)[14] = fma(vec4f(a1.w), b0, (*sums)[14]);
  (*sums)[15] = fma(vec4f(a1.w), b1, (*sums)[15]);
}

fn store(row: u32, column: u32, value: f32) {
  if (column < params.b.count) {
    let inner = params.b.inner;
    let index = row + (column / inner) * params.outOuterStride + (column % inner) * params.outInnerStride;
    if (params.accumulate == 1u) {
      out[index] += value;
    } else {
      out[index] = value;
    }
  }
}

fn storeRow(x: u32, y: u32, chunk: u32, left: vec4f, right: vec4f) {
  if (x >= params.a.count) {
    return;
  }
  let row = params.outBase + chunk * params.outChunk + x * params.outX;
  store(row, y, left.x);
  store(row, y + 1u, left.y);
  store(row, y + 2u, left.z);
  store(row, y + 3u, left.w);
  let far = y + 4u * T;
  store(row, far, right.x);
  store(row, far + 1u, right.y);
  store(row, far + 2u, right.z);
  store(row, far + 3u, right.w);
}

@compute @workgroup_size(T, T)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
  @builtin(local_invocation_index) invocation: u32,
) {
  let tilesX = (params.a.count + 8u * T - 1u) / (8u * T);
  let tilesY = (params.b.count + 8u * T - 1u) / (8u * T);
  let task = group.y * groups.x + group.x;
  let tileX = task % tilesX;
  let tileY = (task / tilesX) % tilesY;
  let chunk = task / (tilesX * tilesY);
  if (chunk >= params.chunks || (params.upperOnly == 1u && tileX > tileY)) {
    return;
  }
  let kStart = params.kStart + chunk * params.chunk;
  let kEnd = min(kStart + params.chunk, params.k);

  // Which 4×4 block this invocation stages. Neighbours stand along the direction in which memory is contiguous.
  let isB = invocation >= T * T / 2u;
  var o = params.a;
  var tile = tileX;
  if (isB) {
    o = params.b;
    tile = tileY;
  }
  let place = invocation % (T * T / 2u);
  var x4 = place % (2u * T);
  var k4 = place / (2u * T);
  if (o.load == 2u) {
    k4 = place % (T / 4u);
    x4 = place / (T / 4u);
  }
  var block: Block;
  let x = tile * 8u * T + 4u * x4;
  block.x = offsetsOf(o, x);
  block.valid = select(0u, o.count - x, x < o.count);
  block.k = kStart + 4u * k4;
  block.kOuter = block.k / params.kInner;
  block.kInner = block.k % params.kInner;
  let stepOuter = T / params.kInner;
  let stepInner = T % params.kInner;
  let slot = select(0u, 2u * T * T, isB) + 8u * T * k4 + (x4 ^ (2u * k4));

  var sums: array<vec4f, 16>;
  var rows = loadBlock(isB, o, block, kEnd);
  for (var step = kStart; step < kEnd; step += T) {
    workgroupBarrier();
    tiles[slot] = rows[0];
    tiles[slot + 2u * T] = rows[1];
    tiles[slot + 4u * T] = rows[2];
    tiles[slot + 6u * T] = rows[3];
    workgroupBarrier();

    block.k += T;
    block.kOuter += stepOuter;
    block.kInner += stepInner;
    if (block.kInner >= params.kInner) {
      block.kInner -= params.kInner;
      block.kOuter += 1u;
    }
    rows = loadBlock(isB, o, block, kEnd);

    for (var quad = 0u; quad < T / 4u; quad++) {
      let columnA = 8u * T * quad + (local.y ^ (2u * quad));
      let columnB = 8u * T * quad + (local.x ^ (2u * quad)) + 2u * T * T;
      multiplyAdd(&sums, tiles[columnA], tiles[columnA + T], tiles[columnB], tiles[columnB + T]);
      multiplyAdd(
        &sums,
        tiles[columnA + 2u * T],
        tiles[columnA + 3u * T],
        tiles[columnB + 2u * T],
        tiles[columnB + 3u * T],
      );
      multiplyAdd(
        &sums,
        tiles[columnA + 4u * T],
        tiles[columnA + 5u * T],
        tiles[columnB + 4u * T],
        tiles[columnB + 5u * T],
      );
      multiplyAdd(
        &sums,
        tiles[columnA + 6u * T],
        tiles[columnA + 7u * T],
        tiles[columnB + 6u * T],
        tiles[columnB + 7u * T],
      );
    }
  }

  let row = tileX * 8u * T + 4u * local.y;
  let column = tileY * 8u * T + 4u * local.x;
  storeRow(row, column, chunk, sums[0], sums[1]);
  storeRow(row + 1u, column, chunk, sums[2], sums[3]);
  storeRow(row + 2u, column, chunk, sums[4], sums[5]);
  storeRow(row + 3u, column, chunk, sums[6], sums[7]);
  let lower = row + 4u * T;
  storeRow(lower, column, chunk, sums[8], sums[9]);
  storeRow(lower + 1u, column, chunk, sums[10], sums[11]);
  storeRow(lower + 2u, column, chunk, sums[12], sums[13]);
  storeRow(lower + 3u, column, chunk, sums[14], sums[15]);
}
