"""Muon (Jordan et al., 2024): momentum whose singular values are all pulled towards one, for matrices.

torch.optim.Muon goes matrix by matrix in bfloat16, which a CPU without such instructions computes forty times slower than the rest of
a step; here all matrices of one shape go together, in float32, which also
spares a GPU most of its launches.
"""
import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: fast towards [0.7, 1.2], not exactly to one


def orthogonalized(g: Tensor, steps: int = 5) -> Tensor:
    """g [n, rows, cols] -> each matrix U V^T of its singular value decomposition, roughly."""
    a, b, c = NEWTON_SCHULZ
    wide = g.shape[-2] <= g.shape[-1]
    x = g if wide else g.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Steps have the root mean square of AdamW's (Liu et al., 2025, arXiv 2502.16982), so that one rate serves both."""

    def __init__(self, matrices: list[Tensor], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.1):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for shape in {p.shape for p in group["params"]}:
                same = [p for p in group["params"] if p.shape == shape]
                for p in same:
                    if "momentum" not in self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                momenta, grads = [self.state[p]["momentum"] for p in same], [p.grad for p in same]
                torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
                nesterov = torch.stack(torch._foreach_lerp(grads, momenta, group["momentum"]))
                size = group["lr"] * 0.2 * max(shape) ** 0.5
                torch._foreach_mul_(same, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_sub_(same, list(orthogonalized(nesterov)), alpha=size)
