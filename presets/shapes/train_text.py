"""Trains the text encoder: every token learns all that its caption says; the transformer need not bind words."""

import random

import torch
from optimiser import schedule
from parts import TEXT_TOKENS
from run import Run, resume
from torch import Tensor, nn
from torch.nn import functional as F

from rainfusion_core.shapes import world

ATTRIBUTES = world.attributes()
EMPTY = 0.03  # share of empty captions


def train_text(run: Run, tokenizer, encoder: nn.Module) -> None:
    width = encoder.config.d_model
    heads = nn.ModuleDict({k: nn.Linear(width, len(v) + 1) for k, v in ATTRIBUTES.items()})
    both = nn.ModuleList([encoder, heads.to(run.device)])
    optimizer = torch.optim.AdamW(both.parameters(), 2e-3)
    step = resume(run, "text", model=both, optimizer=optimizer)
    rng = random.Random(f"{run.seed}-{step}")

    def save() -> None:
        run.save("text", model=both.state_dict(), optimizer=optimizer.state_dict(), step=step)

    for progress in run.loop("text", save):
        texts, labels = zip(*(example(rng) for _ in range(64)), strict=True)
        batch = tokenizer(list(texts), padding=True, return_tensors="pt").to(run.device)
        hidden = encoder(batch.input_ids, batch.attention_mask).last_hidden_state
        loss, right = naming_loss(heads, hidden, batch.attention_mask, labels)
        optimizer.param_groups[0]["lr"] = 2e-3 * schedule(progress)
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if run.due("text", progress):
            run.log("text", step=step, loss=round(loss.item(), 4), right=round(right, 4))


def example(rng: random.Random) -> tuple[str, world.Named]:
    if rng.random() < EMPTY:
        return "", {}
    return world.caption(world.random_scene(rng), rng)


def naming_loss(
    heads: nn.ModuleDict, hidden: Tensor, mask: Tensor, labels: tuple[world.Named, ...]
) -> tuple[Tensor, float]:
    """Cross-entropy of every token's guess at every attribute, and the share that is right."""
    loss, right = torch.zeros((), device=hidden.device), 0.0
    for name, values in ATTRIBUTES.items():
        target = [1 + values.index(x[name]) if x.get(name) else 0 for x in labels]
        wanted = torch.tensor(target, device=hidden.device)[:, None].expand(hidden.shape[:2])
        guess = heads[name](hidden)
        each = F.cross_entropy(guess.mT, wanted, reduction="none")
        loss = loss + (each * mask).sum() / mask.sum()
        right += float(((guess.argmax(-1) == wanted) * mask).sum() / mask.sum()) / len(ATTRIBUTES)
    return loss, right


@torch.no_grad()
def embed(tokenizer, encoder: nn.Module, texts: list[str]) -> Tensor:
    """(batch, TEXT_TOKENS, width), zeros after the last token, exactly as WanPipeline does it."""
    found = []
    for start in range(0, len(texts), 512):
        batch = tokenizer(
            texts[start : start + 512], padding="max_length", max_length=TEXT_TOKENS,
            truncation=True, return_tensors="pt",
        ).to(next(encoder.parameters()).device)  # fmt: skip
        hidden = encoder(batch.input_ids, batch.attention_mask).last_hidden_state
        found.append(hidden * batch.attention_mask[..., None])
    return torch.cat(found)
