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
// Grid: one workgroup of T² invocations per 8T×8T tile of the result and chunk of k; tile x fastest, so that the
// workgroups that run together share the columns of b. The grid is folded into two dimensions (65535 limit).
// Each step stages T values of k: 2T² vectors per operand, one 4×4 block per invocation (half load a, half load b).
// Invocation (x, y) computes rows 4y.. and 4(T + y).. by columns 4x.. and 4(T + x)..: 64 sums in registers. Eight
// neighbours lie along x and four along y, so that 32 invocations in step read 8 + 4 different vectors of a row of the
// tiles (192 bytes, one pass over 32 banks each) and not 16 + 2.
// Barriers: two a step, in uniform control flow. The next block is read while the present one is multiplied, and a second
// workgroup on the same processor works while one waits (16 KiB of workgroup memory and some 130 registers allow it).
// Cost: an invocation's 64 multiply-adds per k take 4 vector reads of the tiles with their addresses and bounds checks,
// some 76 instructions in all, so at most 84% of what is issued is arithmetic. A workgroup reads 16T numbers for the 64T²
// multiply-adds of one k, 1/T bytes each: at T = 16 and 23 TFLOPS (35% of an H200) that is 0.7 TB/s from the L2 cache.
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

// Offsets of the result's columns y .. y + 3.
fn columnOffsets(y: u32) -> vec4u {
  let all = vec4u(y, y + 1u, y + 2u, y + 3u);
  return (all / params.b.inner) * params.outOuterStride + (all % params.b.inner) * params.outInnerStride;
}

fn store(index: u32, value: f32) {
  if (params.accumulate == 1u) {
    out[index] += value;
  } else {
    out[index] = value;
  }
}

// Four neighbouring columns of the result: their offsets, and how many of them exist.
struct Columns {
  offsets: vec4u,
  valid: u32,
}

fn storeFour(row: u32, columns: Columns, values: vec4f) {
  if (columns.valid > 0u) {
    store(row + columns.offsets.x, values.x);
  }
  if (columns.valid > 1u) {
    store(row + columns.offsets.y, values.y);
  }
  if (columns.valid > 2u) {
    store(row + columns.offsets.z, values.z);
  }
  if (columns.valid > 3u) {
    store(row + columns.offsets.w, values.w);
  }
}

fn storeRow(x: u32, chunk: u32, near: Columns, left: vec4f, far: Columns, right: vec4f) {
  if (x < params.a.count) {
    let row = params.outBase + chunk * params.outChunk + x * params.outX;
    storeFour(row, near, left);
    storeFour(row, far, right);
  }
}

@compute @workgroup_size(T * T)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
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
  let first = tile * 8u * T + 4u * x4;
  block.x = offsetsOf(o, first);
  block.valid = select(0u, o.count - first, first < o.count);
  block.k = kStart + 4u * k4;
  block.kOuter = block.k / params.kInner;
  block.kInner = block.k % params.kInner;
  let stepOuter = T / params.kInner;
  let stepInner = T % params.kInner;
  let slot = select(0u, 2u * T * T, isB) + 8u * T * k4 + (x4 ^ (2u * k4));

  // Which part of the tile it computes: 8×4 neighbours at a time.
  let group32 = invocation / 32u;
  let lane = vec2u(8u * (group32 % (T / 8u)) + invocation % 8u, 4u * (group32 / (T / 8u)) + (invocation / 8u) % 4u);

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
      let columnA = 8u * T * quad + (lane.y ^ (2u * quad));
      let columnB = 8u * T * quad + (lane.x ^ (2u * quad)) + 2u * T * T;
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

  let x = tileX * 8u * T + 4u * lane.y;
  let y = tileY * 8u * T + 4u * lane.x;
  let near = Columns(columnOffsets(y), select(0u, params.b.count - y, y < params.b.count));
  let farY = y + 4u * T;
  let far = Columns(columnOffsets(farY), select(0u, params.b.count - farY, farY < params.b.count));
  // The sums are named one by one: an index that varies would put them into memory.
  storeRow(x, chunk, near, sums[0], far, sums[1]);
  storeRow(x + 1u, chunk, near, sums[2], far, sums[3]);
  storeRow(x + 2u, chunk, near, sums[4], far, sums[5]);
  storeRow(x + 3u, chunk, near, sums[6], far, sums[7]);
  let lower = x + 4u * T;
  storeRow(lower, chunk, near, sums[8], far, sums[9]);
  storeRow(lower + 1u, chunk, near, sums[10], far, sums[11]);
  storeRow(lower + 2u, chunk, near, sums[12], far, sums[13]);
  storeRow(lower + 3u, chunk, near, sums[14], far, sums[15]);
}
