"""Tucker decomposition of one attention layer, as the server does it at start.

Names are the field's: W is d x h x 4 x H, the slices W[:, :, s, i] for s = Q, K, V, O and
head i as they act on a row vector (O transposed); W ~ G x1 U1 x2 U2 x3 U3, the head mode
left whole (TensorLLM, arXiv 2501.15674).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def compression_ratio(shape: tuple[int, int, int, int], ranks: tuple[int, int, int]) -> float:
    """Weights of a layer's attention over numbers in its factors, for W of d x h x 4 x H."""
    d, h, s, heads = shape
    r1, r2, r3 = ranks
    return s * d * h * heads / (r1 * r2 * r3 * heads + d * r1 + h * r2 + s * r3)


def stack(q: Tensor, k: Tensor, v: Tensor, o: Tensor, heads: int) -> Tensor:
    """W (d x h x 4 x H) of four d x d matrices in [in, out] order, as in x @ W."""
    d = q.shape[0]
    columns = [m.reshape(d, heads, d // heads).permute(0, 2, 1) for m in (q, k, v, o.T)]
    return torch.stack(columns, dim=2)


def unstack(w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inverse of `stack`."""
    d = w.shape[0]
    q, k, v, o = (w[:, :, s].permute(0, 2, 1).reshape(d, d) for s in range(4))
    return q, k, v, o.T


def _unfold(w: Tensor, mode: int) -> Tensor:
    return w.movedim(mode, 0).reshape(w.shape[mode], -1)


def _leading(w: Tensor, mode: int, rank: int) -> Tensor:
    """Orthonormal basis of the `rank` leading directions of one mode."""
    unfolded = _unfold(w, mode)
    return torch.linalg.eigh(unfolded @ unfolded.T)[1][:, -rank:]


def _apply(w: Tensor, matrix: Tensor, mode: int) -> Tensor:
    """Mode product with the transpose of `matrix`."""
    return torch.tensordot(matrix, w, dims=([0], [mode])).movedim(0, mode)


def truncate(w: Tensor, ranks: tuple[int, int, int], sweeps: int = 2) -> Tensor:
    """The reconstruction of `w` at `ranks`: truncated HOSVD, then HOOI sweeps, in float64."""
    exact = w.to(torch.float64)
    bases: list[Tensor] = [torch.empty(0)] * 3
    shrunk = exact
    for mode in (2, 1, 0):  # smallest mode first
        bases[mode] = _leading(shrunk, mode, ranks[mode])
        shrunk = _apply(shrunk, bases[mode], mode)
    for _ in range(sweeps):
        for mode in range(3):
            partial = exact
            for other in range(3):
                if other != mode:
                    partial = _apply(partial, bases[other], other)
            bases[mode] = _leading(partial, mode, ranks[mode])
    for mode in range(3):
        exact = _apply(exact, bases[mode] @ bases[mode].T, mode)
    return exact.to(w.dtype)


def relative_error(w: Tensor, approximation: Tensor) -> float:
    """Frobenius norm of the residual over that of `w`."""
    return float((w - approximation).double().norm() / w.double().norm())


def layer_weights(layer: nn.Module, heads: int) -> Tensor:
    """W of one BERT layer (PyTorch's Linear holds [out, in], hence the transposes)."""
    own, out = layer.attention.self, layer.attention.output.dense
    return stack(own.query.weight.data.T, own.key.weight.data.T, own.value.weight.data.T, out.weight.data.T, heads)


def set_layer_weights(layer: nn.Module, w: Tensor) -> None:
    """Write W back into a BERT layer."""
    own, out = layer.attention.self, layer.attention.output.dense
    for linear, matrix in zip((own.query, own.key, own.value, out), unstack(w)):
        linear.weight.data.copy_(matrix.T)


def pull(layer: nn.Module, heads: int, ranks: tuple[int, int, int], budget: float) -> float:
    """Move a layer's weights towards their truncation until its relative error is `budget`.

    This is the proximal step of a penalty on ||W - What||: the part of W outside the Tucker
    subspaces is scaled down, and not removed, so that spectra keep a tail. Returns the
    relative error before the step.
    """
    w = layer_weights(layer, heads)
    approximation = truncate(w, ranks, sweeps=0)
    error = relative_error(w, approximation)
    if error > budget:
        set_layer_weights(layer, approximation + (budget / error) * (w - approximation))
    return error
