"""Writes test/testdata/tucker/golden.json: errors of partial Tucker decompositions by an independent implementation.

Run: python3 scripts/golden/make_golden.py (needs NumPy, and onnx for the trained weights). Where TensorLy is installed it is used, with tolerance 1e-5 and up to
100 iterations; otherwise the stand-in of scripts/bench/tensorly_like.py, and the file says which. Every case gives a kind and a
seed from which the test makes the very same tensor: numbers are mulberry32's, scaled by powers in float64, and rounded to float32.
Trained cases name a layer of models/tuckerd-qa instead.
"""

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "bench"))
import tensorly_like  # noqa: E402

SHAPES = [
    ((24, 8, 4, 3), [(6, 4, 2), (12, 3, 4), (20, 8, 3), (1, 1, 1)]),
    ((48, 12, 4, 4), [(24, 6, 2), (12, 6, 3), (40, 2, 4), (4, 12, 1)]),
    ((96, 16, 4, 6), [(32, 8, 2), (64, 12, 3)]),
    # above the size that is decomposed in float64; the projected hidden mode square, and taller than wide
    ((384, 32, 4, 12), [(128, 16, 2)]),
    ((512, 32, 4, 12), [(96, 16, 2)]),
]
KINDS = ("random", "power-law", "low-rank")
TRAINED = ROOT / "models" / "tuckerd-qa"
# (r1, r2, r3) from the model's least to its most lossy settings, two of them with a truncated stack mode
TRAINED_RANKS = [(80, 20, 4), (62, 16, 4), (48, 16, 3), (44, 13, 4), (28, 10, 2), (16, 8, 4)]


def uniform(seed, count):
    """mulberry32 in [-1, 1), as in test/tucker/random.ts."""
    state = np.uint32(seed)
    with np.errstate(over="ignore"):
        states = state + np.arange(1, count + 1, dtype=np.uint32) * np.uint32(0x6D2B79F5)
        bits = (states ^ (states >> np.uint32(15))) * (states | np.uint32(1))
        bits ^= bits + (bits ^ (bits >> np.uint32(7))) * (bits | np.uint32(61))
        bits ^= bits >> np.uint32(14)
    return (bits >> np.uint32(8)).astype(np.float64) / 2**23 - 1


def make_tensor(kind, shape, seed):
    """The tensor d x h x 4 x H of a case, float32."""
    d, h, s, heads = shape
    noise = uniform(seed, d * h * s * heads).reshape(shape)
    if kind == "random":
        return noise.astype(np.float32)
    if kind == "power-law":  # rows, columns and matrices of falling size
        scale = 1 / (np.arange(1, d + 1)[:, None, None, None] * np.sqrt(np.arange(1, h + 1))[None, :, None, None])
        return (noise * scale / np.arange(1, s + 1)[None, None, :, None]).astype(np.float32)
    r1, r2, r3 = max(1, d // 4), max(1, h // 2), 2  # planted: a core of these ranks, and a thousandth of noise
    core = uniform(seed + 1, r1 * r2 * r3 * heads).reshape(r1, r2, r3, heads)
    u1 = uniform(seed + 2, d * r1).reshape(d, r1)
    u2 = uniform(seed + 3, h * r2).reshape(h, r2)
    u3 = uniform(seed + 4, s * r3).reshape(s, r3)
    planted = np.einsum("abki,pa,qb,sk->pqsi", core, u1, u2, u3)
    # float64 sums depend on their order in the last bits: round to 20 fractional bits, so that both languages agree
    return (np.round(planted * 2**20) / 2**20 + noise / 1024).astype(np.float32)


def trained_layers():
    """The tensors d x h x 4 x H of a model's layers, float32: W_Q, W_K, W_V and W_O transposed, by heads, as they act on rows."""
    import onnx
    from onnx import numpy_helper

    heads = json.loads((TRAINED / "config.json").read_text())["num_attention_heads"]
    graph = onnx.load(TRAINED / "onnx" / "model.onnx").graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = {}
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights or "/attention/" not in node.name:
            continue
        layer = int(node.name.split("/layer.")[1].split("/")[0])
        part = node.name.split("/attention/")[1].removesuffix("/MatMul")  # self/query … output/dense
        layers.setdefault(layer, {})[part] = weights[node.input[1]]
    for layer, parts in sorted(layers.items()):
        query, key, value = (parts[f"self/{name}"] for name in ("query", "key", "value"))
        matrices = [query, key, value, parts["output/dense"].T]
        d = query.shape[0]
        yield layer, np.stack([m.reshape(d, heads, -1).transpose(0, 2, 1) for m in matrices], axis=2)


def decompose(tensor, ranks):
    try:
        from tensorly.decomposition import partial_tucker
    except ImportError:
        core, factors, sweeps = tensorly_like.partial_tucker(tensor, ranks, tol=1e-5, n_iter_max=100)
        return tensorly_like.relative_error(tensor, core, factors), sweeps
    (core, factors), errors = partial_tucker(
        tensor.astype(np.float64), rank=list(ranks), modes=[0, 1, 2], init="svd", tol=1e-5, n_iter_max=100
    )
    return tensorly_like.relative_error(tensor, core, factors), len(errors)


def implementation():
    try:
        import tensorly
    except ImportError:
        return f"scripts/bench/tensorly_like.py on NumPy {np.__version__} (stand-in: TensorLy wasn't available)"
    return f"TensorLy {tensorly.__version__} on NumPy {np.__version__}"


def main():
    cases = []
    for shape, choices in SHAPES:
        for index, kind in enumerate(KINDS):
            seed = 1000 * shape[0] + 10 * index
            tensor = make_tensor(kind, shape, seed)
            for ranks in choices:
                error, sweeps = decompose(tensor, ranks)
                cases.append(
                    {"kind": kind, "shape": shape, "seed": seed, "ranks": ranks, "relativeError": error, "sweeps": sweeps}
                )
    for layer, tensor in trained_layers():
        for ranks in TRAINED_RANKS:
            error, sweeps = decompose(tensor, ranks)
            cases.append(
                {"kind": "trained", "model": TRAINED.name, "layer": layer, "shape": tensor.shape, "ranks": ranks,
                 "relativeError": error, "sweeps": sweeps}
            )
    golden = {"implementation": implementation(), "tolerance": 1e-5, "iterations": 100, "cases": cases}
    path = ROOT / "test" / "testdata" / "tucker" / "golden.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{len(cases)} cases written to {path}")


if __name__ == "__main__":
    main()
