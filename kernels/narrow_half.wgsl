// Float32 numbers to float16 storage, and what that loses.
//
//   half[i] = round(source[i] · inverse) to binary16          i < count
//   partial[w] = (Σ (source[i] − unit · half[i])², Σ source[i]²) over the numbers of workgroup w
//
// half lies from word `first` on, two numbers in each u32, the lower half first; an odd count is padded with zero. Rounding
// is to nearest even, done on the bits and not by pack2x16float, whose rounding WGSL leaves open. What would be subnormal
// becomes zero, since an adapter may read it so; what is too large becomes the largest number. Both show in the sums.
//
// Grid: `groups` workgroups of 256, folded into two dimensions; invocation i of all takes words i, i + total, …
// Barriers: a tree over the workgroup, in uniform control flow.
// Cost: 4 bytes read, 2 written.
// Precision: differences are exact; sums in float32, chains of count / total terms, then pairwise; the host adds in float64.

struct Params {
  count: u32,
  // Word of half at which these numbers begin.
  first: u32,
  // Bits of float32 numbers.
  unit: u32,
  inverse: u32,
  groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> half: array<u32>;
@group(0) @binding(3) var<storage, read_write> partial: array<vec2f>;

var<workgroup> sums: array<vec2f, 256>;

// Exponents of float32 are biased by 127, those of binary16 by 15; fractions have 23 and 10 bits.
const REBIAS = 112u << 10u;
const SMALLEST = 1u << 10u;
const LARGEST = 0x7bffu;

// Magnitude of a number in binary16.
fn narrow(value: f32) -> u32 {
  let magnitude = bitcast<u32>(value) & 0x7fffffffu;
  let rounded = (magnitude + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u;
  if (rounded < REBIAS + SMALLEST) {
    return 0u;
  }
  return min(rounded - REBIAS, LARGEST);
}

// What it stands for, always positive.
fn widen(magnitude: u32) -> f32 {
  return select(bitcast<f32>((magnitude + REBIAS) << 13u), 0.0, magnitude == 0u);
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
  let unit = bitcast<f32>(params.unit);
  let inverse = bitcast<f32>(params.inverse);
  let words = (params.count + 1u) / 2u;
  var sum = vec2f();
  for (var word = task * 256u + invocation; word < words; word += params.groups * 256u) {
    let low = source[2u * word];
    var high = 0.0;
    if (2u * word + 1u < params.count) {
      high = source[2u * word + 1u];
    }
    let magnitudes = vec2u(narrow(low * inverse), narrow(high * inverse));
    let signs = (vec2u(bitcast<u32>(low), bitcast<u32>(high)) >> vec2u(16u)) & vec2u(0x8000u);
    half[params.first + word] = (magnitudes.x | signs.x) | ((magnitudes.y | signs.y) << 16u);
    let errors = abs(vec2f(low, high)) - unit * vec2f(widen(magnitudes.x), widen(magnitudes.y));
    sum += vec2f(dot(errors, errors), low * low + high * high);
  }
  sums[invocation] = sum;
  for (var distance = 128u; distance > 0u; distance /= 2u) {
    workgroupBarrier();
    if (invocation < distance) {
      sums[invocation] += sums[invocation + distance];
    }
  }
  if (invocation == 0u) {
    partial[task] = sums[0];
  }
}
