// Adds the partial results of a product whose contraction was cut into chunks.
//
//   out[g][x, y] = Σ_{s of group g} partial[s][x, y]          (+ what was there, with accumulate = 1)
//
// partial is dense, chunks × x × y; group g takes chunks g·perGroup and on. out[g][x, y] lies at
// outBase + g·outGroup + x·outX + (y / inner)·outOuterStride + (y % inner)·outInnerStride.
//
// Grid: one invocation per element and group, 256 a workgroup, folded into two dimensions. No barriers.
// Precision: float32, eight interleaved chains added pairwise.

struct Params {
  x: u32,
  y: u32,
  inner: u32,
  chunks: u32,
  perGroup: u32,
  groups: u32,
  outBase: u32,
  outGroup: u32,
  outX: u32,
  outOuterStride: u32,
  outInnerStride: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

fn load(element: u32, chunk: u32, end: u32) -> f32 {
  if (chunk < end) {
    return partial[chunk * params.x * params.y + element];
  }
  return 0.0;
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) workgroup: vec3u,
  @builtin(num_workgroups) workgroups: vec3u,
  @builtin(local_invocation_index) invocation: u32,
) {
  let elements = params.x * params.y;
  let tiles = (elements + 255u) / 256u;
  let task = workgroup.y * workgroups.x + workgroup.x;
  let group = task / tiles;
  let element = (task % tiles) * 256u + invocation;
  if (group >= params.groups || element >= elements) {
    return;
  }
  let end = min((group + 1u) * params.perGroup, params.chunks);
  var low = vec4f();
  var high = vec4f();
  for (var s = group * params.perGroup; s < end; s += 8u) {
    low += vec4f(load(element, s, end), load(element, s + 1u, end), load(element, s + 2u, end), load(element, s + 3u, end));
    high += vec4f(
      load(element, s + 4u, end),
      load(element, s + 5u, end),
      load(element, s + 6u, end),
      load(element, s + 7u, end),
    );
  }
  let pairs = low + high;
  let sum = (pairs.x + pairs.y) + (pairs.z + pairs.w);
  let y = element % params.y;
  let index = params.outBase + group * params.outGroup + (element / params.y) * params.outX +
    (y / params.inner) * params.outOuterStride + (y % params.inner) * params.outInnerStride;
  if (params.accumulate == 1u) {
    out[index] += sum;
  } else {
    out[index] = sum;
  }
}
