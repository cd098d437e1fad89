"""Partial Tucker decomposition as TensorLy does it, in NumPy: the baseline of the benchmark and of the golden data.

TensorLy's `partial_tucker(tensor, rank, modes, init="svd", tol, n_iter_max)` starts from the full singular value
decompositions of the unfoldings of the whole tensor; then every sweep projects the tensor onto all factors but one, and takes
that mode's factor from a full SVD of the unfolding. It stops when the relative error, by subtraction of squared norms, changes by less than
tol. This file does those steps with NumPy's float64 `svd(full_matrices=False)`; it was written from that description.

As a program it prints one line of JSON: python3 tensorly_like.py FILE d,h,4,H r1,r2,r3 TOL, where FILE holds the tensor as raw
little-endian float32.
"""

import json
import sys
import time

import numpy as np

MODES = (0, 1, 2)


def unfold(tensor, mode):
    """The mode's fibres as columns."""
    return np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)


def mode_dot(tensor, matrix, mode):
    """Contracts a mode of the tensor with the columns of `matrix`."""
    return np.moveaxis(np.tensordot(matrix, tensor, (1, mode)), 0, mode)


def multi_mode_dot(tensor, factors, skip=None):
    """Projects the tensor onto the factors, in order, leaving one mode out."""
    for mode in MODES:
        if mode != skip:
            tensor = mode_dot(tensor, factors[mode].T, mode)
    return tensor


def leading(matrix, rank):
    return np.linalg.svd(matrix, full_matrices=False)[0][:, :rank]


def partial_tucker(tensor, ranks, tol=1e-5, n_iter_max=100):
    """Core, factors and number of sweeps."""
    tensor = np.asarray(tensor, dtype=np.float64)
    factors = [leading(unfold(tensor, mode), ranks[mode]) for mode in MODES]
    # more columns than the unfolding has are filled up, as TensorLy does
    factors = [complete(factor, ranks[mode]) for mode, factor in zip(MODES, factors)]
    norm = np.linalg.norm(tensor)
    errors = []
    core = multi_mode_dot(tensor, factors)
    for sweep in range(n_iter_max):
        for mode in MODES:
            projected = unfold(multi_mode_dot(tensor, factors, skip=mode), mode)
            factors[mode] = complete(leading(projected, ranks[mode]), ranks[mode])
        core = multi_mode_dot(tensor, factors)
        errors.append(np.sqrt(abs(norm**2 - np.linalg.norm(core) ** 2)) / norm)
        if sweep > 0 and abs(errors[-2] - errors[-1]) < tol:
            break
    return core, factors, len(errors)


def complete(factor, rank):
    """Orthonormal columns up to `rank`, where the unfolding had fewer."""
    missing = rank - factor.shape[1]
    if missing <= 0:
        return factor
    rng = np.random.default_rng(0)
    extra = rng.standard_normal((factor.shape[0], missing))
    return np.linalg.qr(np.concatenate([factor, extra], axis=1))[0]


def relative_error(tensor, core, factors):
    """||W - W_hat|| / ||W||, entry by entry."""
    tensor = np.asarray(tensor, dtype=np.float64)
    for mode in MODES:
        core = mode_dot(core, factors[mode], mode)
    norm = np.linalg.norm(tensor)
    return float(np.linalg.norm(tensor - core) / norm) if norm else 0.0


def main():
    path, shape, ranks, tol = sys.argv[1:]
    shape, ranks = [tuple(int(n) for n in text.split(",")) for text in (shape, ranks)]
    tensor = np.fromfile(path, dtype="<f4").reshape(shape)
    start = time.perf_counter()
    core, factors, sweeps = partial_tucker(tensor, ranks, tol=float(tol))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "sweeps": sweeps, "relativeError": relative_error(tensor, core, factors)}))


if __name__ == "__main__":
    main()
