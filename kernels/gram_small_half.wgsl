// The Gram matrix of gram_small.wgsl, of at most four rows of any length, where they are stored as float16 numbers.
//
//   partial[w][j, k] = Σ_{c of workgroup w} t[j, c] · t[k, c]            j, k < n ≤ 4; rows n.. are zero
//
// t[j, c] is number base + j·rowStride + (c / inner)·outerStride + c % inner of t times `unit` (the bits of a float32), two
// binary16 numbers in each u32, the lower half first; all of these but c are divisible by 4, as are inner and count.
//
// Grid: `groups` workgroups of 256, folded into two dimensions; invocation i of all takes the four columns from 4i, from
// 4(i + total), …
// Barriers: a tree over the workgroup, in uniform control flow.
// Cost: 2n bytes and one split by `inner` for four columns, 8 bytes a read, n reads under way at a time.
// Precision: float32 with fma, chains of count / total terms, then pairwise; the host adds the partials in float64.

struct Params {
  n: u32,
  count: u32,
  inner: u32,
  base: u32,
  rowStride: u32,
  outerStride: u32,
  groups: u32,
  unit: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> t: array<vec2u>;
@group(0) @binding(2) var<storage, read_write> partial: array<mat4x4f>;

var<workgroup> sums: array<mat4x4f, 256>;

// Four columns of a row.
fn load(index: u32) -> vec4f {
  let halves = t[index / 4u];
  return vec4f(unpack2x16float(halves.x), unpack2x16float(halves.y));
}

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
  var sum0 = vec4f();
  var sum1 = vec4f();
  var sum2 = vec4f();
  var sum3 = vec4f();
  for (var c = 4u * (task * 256u + invocation); c < params.count; c += 1024u * params.groups) {
    let index = params.base + (c / params.inner) * params.outerStride + c % params.inner;
    var rows = mat4x4f();
    rows[0] = load(index);
    if (params.n > 1u) {
      rows[1] = load(index + params.rowStride);
    }
    if (params.n > 2u) {
      rows[2] = load(index + 2u * params.rowStride);
    }
    if (params.n > 3u) {
      rows[3] = load(index + 3u * params.rowStride);
    }
    let columns = transpose(rows);
    sum0 = fma(vec4f(rows[0].x), columns[0], sum0);
    sum1 = fma(vec4f(rows[1].x), columns[0], sum1);
    sum2 = fma(vec4f(rows[2].x), columns[0], sum2);
    sum3 = fma(vec4f(rows[3].x), columns[0], sum3);
    sum0 = fma(vec4f(rows[0].y), columns[1], sum0);
    sum1 = fma(vec4f(rows[1].y), columns[1], sum1);
    sum2 = fma(vec4f(rows[2].y), columns[1], sum2);
    sum3 = fma(vec4f(rows[3].y), columns[1], sum3);
    sum0 = fma(vec4f(rows[0].z), columns[2], sum0);
    sum1 = fma(vec4f(rows[1].z), columns[2], sum1);
    sum2 = fma(vec4f(rows[2].z), columns[2], sum2);
    sum3 = fma(vec4f(rows[3].z), columns[2], sum3);
    sum0 = fma(vec4f(rows[0].w), columns[3], sum0);
    sum1 = fma(vec4f(rows[1].w), columns[3], sum1);
    sum2 = fma(vec4f(rows[2].w), columns[3], sum2);
    sum3 = fma(vec4f(rows[3].w), columns[3], sum3);
  }
  sums[invocation] = mat4x4f(sum0, sum1, sum2, sum3);
  for (var distance = 128u; distance > 0u; distance /= 2u) {
    workgroupBarrier();
    if (invocation < distance) {
      sums[invocation] = sums[invocation] + sums[invocation + distance];
    }
  }
  if (invocation == 0u) {
    let unit = bitcast<f32>(params.unit);
    partial[task] = (unit * unit) * sums[0];
  }
}
