"""A Tucker decomposition of attention weights in float64 NumPy, and its reconstruction put back into a PyTorch model."""

import numpy as np
import torch


def unfold(tensor, mode):
    return np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)


def mode_product(tensor, matrix, mode):
    return np.moveaxis(np.tensordot(matrix, tensor, axes=(1, mode)), 0, mode)


def leading(matrix, rank):
    return np.linalg.svd(matrix, full_matrices=False)[0][:, :rank]


def reconstruction(tensor, ranks, sweeps=200):
    """HOOI over the first three modes of [d, h, 4, H], from the HOSVD, until the subspaces stand still."""
    bases = [leading(unfold(tensor, mode), rank) for mode, rank in enumerate(ranks)]
    for _ in range(sweeps):
        moved = 0.0
        for mode, rank in enumerate(ranks):
            small = tensor
            for other, basis in enumerate(bases):
                if other != mode:
                    small = mode_product(small, basis.T, other)
            basis = leading(unfold(small, mode), rank)
            moved = max(moved, np.linalg.norm(basis @ basis.T - bases[mode] @ bases[mode].T))
            bases[mode] = basis
        if moved < 1e-10:
            break
    for mode, basis in enumerate(bases):
        tensor = mode_product(tensor, basis @ basis.T, mode)
    return tensor


class Site:
    """One attention of a model: four matrices that act on row vectors, wherever the model keeps them."""

    def __init__(self, name, heads, reads, writes):
        self.name, self.heads, self._reads, self._writes = name, heads, reads, writes

    def tensor(self):
        """[d, h, 4, H]; the slice of the output matrix is transposed."""
        query, key, value, output = (read() for read in self._reads)
        split = lambda matrix: matrix.reshape(matrix.shape[0], self.heads, -1).transpose(0, 2, 1)
        return np.stack([split(query), split(key), split(value), split(output.T)], axis=2)

    def write(self, tensor):
        d = tensor.shape[0]
        for part, write in enumerate(self._writes):
            joined = tensor[:, :, part].transpose(0, 2, 1).reshape(d, -1)
            write(joined.T if part == 3 else joined)


def linear_site(name, heads, modules):
    """Query, key, value and output in modules of their own; a matrix is the weight's transpose."""
    return Site(
        name,
        heads,
        [lambda m=m: flat(m.weight).double().numpy().T for m in modules],
        [lambda matrix, m=m: assign(m.weight, slice(None), matrix.T) for m in modules],
    )


def packed_site(name, heads, modules, rows):
    """Query, key and value in one module: `rows` lists the rows of its weight that each of them has."""
    packed, output = modules
    return Site(
        name,
        heads,
        [lambda r=r: flat(packed.weight)[r].double().numpy().T for r in rows]
        + [lambda: flat(output.weight).double().numpy().T],
        [lambda matrix, r=r: assign(packed.weight, r, matrix.T) for r in rows]
        + [lambda matrix: assign(output.weight, slice(None), matrix.T)],
    )


def flat(weight):
    return weight.detach().reshape(weight.shape[0], -1)


def assign(weight, rows, matrix):
    with torch.no_grad():
        part = weight[rows]
        weight[rows] = torch.from_numpy(np.ascontiguousarray(matrix)).to(weight.dtype).reshape(part.shape)
