"""How the weights of `shapes` are stepped: Muon and AdamW on one schedule."""

import math

import torch
from torch import nn


class Optimizer:
    """Muon for matrices and convolutions (seen as matrices), AdamW for the rest, one learning rate scale."""

    def __init__(self, model: nn.Module, rate: float) -> None:
        self.rate = rate
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        wide = [p for p in self.parameters if p.ndim >= 2 and min(p.shape[0], p[0].numel()) > 8]
        # views share memory with the weights, so stepping them steps the model
        self.views = [(p, nn.Parameter(p.data.view(p.shape[0], -1))) for p in wide]
        chosen = {id(p) for p in wide}
        self.muon = torch.optim.Muon(
            [view for _, view in self.views],
            rate,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        )
        rest = [p for p in self.parameters if id(p) not in chosen]
        self.adam = torch.optim.AdamW(rest, rate, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, scale: float) -> float:
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for weight, view in self.views:
            view.grad = None if weight.grad is None else weight.grad.view_as(view)
        for optimizer in (self.muon, self.adam):
            for group in optimizer.param_groups:
                group["lr"] = self.rate * scale
            optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None
        return float(norm)

    def state_dict(self) -> dict:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def schedule(progress: float) -> float:
    """Short warm-up, then a cosine to 2 % of the rate."""
    return min(1.0, progress / 0.01 + 0.02) * (0.51 + 0.49 * math.cos(math.pi * progress))
