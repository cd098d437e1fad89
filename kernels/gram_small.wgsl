// Gram matrix of at most four rows of any length, limited by memory: one partial 4×4 matrix per workgroup.
//
//   partial[w][j, k] = Σ_{c of workgroup w} t[j, c] · t[k, c]            j, k < n ≤ 4; rows n.. are zero
//
// t[j, c] lies at base + j·rowStride + (c / inner)·outerStride + (c % inner)·innerStride.
//
// Grid: `groups` workgroups of 256, folded into two dimensions; invocation i of all takes columns i, i + total, …
// Barriers: a tree over the workgroup, in uniform control flow.
// Precision: float32 with fma, chains of count / total terms, then pairwise; the host adds the partials in float64.

struct Params {
  n: u32,
  count: u32,
  inner: u32,
  base: u32,
  rowStride: u32,
  outerStride: u32,
  innerStride: u32,
  groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> t: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<mat4x4f>;

var<workgroup> sums: array<mat4x4f, 256>;

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
  for (var c = task * 256u + invocation; c < params.count; c += params.groups * 256u) {
    let index = params.base + (c / params.inner) * params.outerStride + (c % params.inner) * params.innerStride;
    var v = vec4f(t[index], 0.0, 0.0, 0.0);
    if (params.n > 1u) {
      v.y = t[index + params.rowStride];
    }
    if (params.n > 2u) {
      v.z = t[index + 2u * params.rowStride];
    }
    if (params.n > 3u) {
      v.w = t[index + 3u * params.rowStride];
    }
    sum0 = fma(vec4f(v.x), v, sum0);
    sum1 = fma(vec4f(v.y), v, sum1);
    sum2 = fma(vec4f(v.z), v, sum2);
    sum3 = fma(vec4f(v.w), v, sum3);
  }
  sums[invocation] = mat4x4f(sum0, sum1, sum2, sum3);
  for (var half = 128u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (invocation < half) {
      sums[invocation] = sums[invocation] + sums[invocation + half];
    }
  }
  if (invocation == 0u) {
    partial[task] = sums[0];
  }
}
