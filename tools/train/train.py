"""Pretraining: python train.py DATA OUT --steps N | --seconds S [--grow-at STEP] [--start CHECKPOINT] [--resume] [--device cuda]

Matrices of the layers learn by Muon, embeddings and norms by AdamW; the rate is warmed up, held, and falls to zero over the last
--decay of the steps; windows are as long as the context in the last --long of them (half of it before: attention is dear on a CPU).
Until --grow-at a model of a quarter of the depth is trained; it is then stacked four times. --start takes the weights of an earlier
run and trains them on. OUT gets loss.jsonl and, every --every steps, checkpoint.pt: enough to --resume, with another number of steps
too, as nothing but the end depends on it; weights.pt is the same without the optimizers, in bf16. With --seconds the run ends by the
clock, compilation included but not imports: the rate follows the share of the time that is gone, so it is zero at the end however fast
the machine is. Such a run has the whole depth and one length of windows, --long 1 or 0.
"""
import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from model import Config, Model, stacked
from muon import Muon

MIXTURE = {"stories": 0.4, "children": 0.4, "novels": 0.2}  # shares of the windows of a batch
GROWTH = 4
PART = 2048  # tokens of a forward and backward on a CPU, so that activations stay in its cache


def rate(step: int, done: float, grow_at: int, peak: float, decay: float) -> float:
    """The rate of a step; done is the share of the run that lies behind, 0 to 1."""
    since_start = step + 1 if step < grow_at else step - grow_at + 1
    return peak * min(1.0, since_start / 100, max(0.0, 1 - done) / decay)


class Progress:
    """The share of a run that is done: by steps, or by the seconds from the end of the first step, which compiles, to the deadline."""

    def __init__(self, steps: int | None, seconds: float | None):
        if (steps is None) == (seconds is None):
            raise SystemExit("give --steps or --seconds, and not both")
        self.steps, self.seconds, self.began = steps, seconds, time.monotonic()
        self.compiled: float | None = None
        self.calls = 0

    def at(self, step: int) -> float:
        if self.steps is not None:
            return step / self.steps
        now = time.monotonic() - self.began
        self.calls += 1
        if self.calls <= 2:  # before the first step and after it
            self.compiled = now
        return min(1.0, (now - self.compiled) / max(1e-9, self.seconds - self.compiled))


def half_precision(device: str) -> torch.autocast:
    """bfloat16 products where the device has instructions for them; elsewhere they are slower than float32."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=device != "cpu" or torch.cpu.get_capabilities().get("avx512_bf16", False))


class Batches:
    """Windows at random places of the streams; the batch of a step depends on the seed and the step alone."""

    def __init__(self, data: Path, tokens: int, seed: int, device: str = "cpu", mixture: dict[str, float] = MIXTURE):
        streams = [np.fromfile(data / f"{name}.bin", dtype=np.uint16) for name in mixture]
        self.sizes = dict(zip(mixture, map(len, streams)))
        self.first = dict(zip(mixture, np.cumsum([0] + [len(s) for s in streams])))
        self.ids = torch.from_numpy(np.concatenate(streams).astype(np.int16)).to(device)  # 4,096 ids fit; resident
        self.tokens, self.seed, self.mixture = tokens, seed, mixture

    def at(self, step: int, length: int) -> torch.Tensor:
        """[tokens / length, length + 1] token ids."""
        random = np.random.default_rng((self.seed, step))
        names = random.choice(list(self.mixture), self.tokens // length, p=list(self.mixture.values()))
        starts = torch.tensor([self.first[name] + random.integers(self.sizes[name] - length - 1) for name in names])
        return self.ids[(starts[:, None] + torch.arange(length + 1)).to(self.ids.device)].long()


def parts(ids: torch.Tensor, device: str) -> tuple[torch.Tensor, ...]:
    """The windows of a batch that go through the model together."""
    return ids.split(max(1, PART // ids.shape[1]) if device == "cpu" else len(ids))


@torch.no_grad()
def held_out_loss(model: Model, ids: np.ndarray, length: int, device: str) -> float:
    """Nats per token over windows without overlap, each token but a window's first predicted once."""
    windows = torch.from_numpy(ids[: len(ids) // length * length].astype(np.int64)).view(-1, length)
    total, training = 0.0, model.training
    model.eval()
    # On a GPU the eager layers serve: compiling them again without gradients takes longer than they save.
    with torch.compiler.set_stance("default" if device == "cpu" else "force_eager"):
        for part in windows.split(16):
            part = part.to(device)
            logits = model(part)
            losses = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]).float(), part[:, 1:].reshape(-1), reduction="sum")
            total += losses.item()
    model.train(training)
    return total / (windows.numel() - len(windows))


def optimizers(model: Model) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.layers.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2 or p is model.embed_tokens.weight]
    return [
        Muon(matrices),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save(state: dict, file: Path) -> None:
    """Whole or not at all: a run may be cut off at any time."""
    torch.save(state, file.with_suffix(".tmp"))
    file.with_suffix(".tmp").rename(file)


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("data", type=Path)
    args.add_argument("out", type=Path)
    args.add_argument("--steps", type=int)
    args.add_argument("--seconds", type=float, help="instead of --steps: end by the clock")
    args.add_argument("--mixture", type=float, nargs=3, default=list(MIXTURE.values()), metavar="SHARE", help=f"of {', '.join(MIXTURE)}")
    args.add_argument("--dropout", type=float, default=0.0, help="for many epochs")
    args.add_argument("--grow-at", type=int, default=0, help="0: the whole depth from the start")
    args.add_argument("--start", type=Path, help="a checkpoint whose weights this run begins with")
    args.add_argument("--decay", type=float, default=0.25, help="share of the steps in which the rate falls")
    args.add_argument("--long", type=float, default=0.25, help="share of the steps with windows of the whole context")
    args.add_argument("--batch", type=int, default=8192, help="tokens per step")
    args.add_argument("--rate", type=float, default=3e-3)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--every", type=int, default=100)
    args.add_argument("--resume", action="store_true")
    args.add_argument("--device", default="cpu")
    a = args.parse_args()
    progress = Progress(a.steps, a.seconds)
    if a.seconds is not None and (a.grow_at or a.resume or a.long not in (0, 1)):
        args.error("--seconds goes with neither --grow-at nor --resume, and with --long 0 or 1")
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    a.out.mkdir(parents=True, exist_ok=True)
    config = Config(dropout=a.dropout)
    held_out = np.fromfile(a.data / "heldout.bin", dtype=np.uint16)
    sample = np.linspace(0, len(held_out) - config.context, 64).astype(int)[:, None] + np.arange(config.context)
    sample = sample.reshape(-1)
    batches = Batches(a.data, a.batch, a.seed, a.device, dict(zip(MIXTURE, a.mixture)))
    start, saved = 0, None
    if a.resume:
        saved = torch.load(a.out / "checkpoint.pt", map_location=a.device)
        start = saved["step"]
    shallow = start <= a.grow_at and a.grow_at > 0
    model = Model(replace(config, n_layers=config.n_layers // GROWTH) if shallow else config).to(a.device)
    if a.start and not saved:
        model.load_state_dict(torch.load(a.start, map_location=a.device)["model"])
    optimizer = optimizers(model)
    if saved:
        model.load_state_dict(saved["model"])
        for o, state in zip(optimizer, saved["optimizer"]):
            o.load_state_dict(state)

    compiled = lambda m: [layer.compile(dynamic=False) for layer in m.layers]
    compiled(model)
    log = (a.out / "loss.jsonl").open("a")
    began, mean = time.time(), 0.0
    step, done = start, progress.at(start)
    while done < 1:
        if shallow and step == a.grow_at:
            model, shallow = stacked(model, GROWTH).to(a.device), False
            optimizer = optimizers(model)
            compiled(model)
        for o in optimizer:
            for group in o.param_groups:
                group["lr"] = rate(step, done, a.grow_at, a.rate, a.decay)
        length = config.context if done >= 1 - a.long else config.context // 2
        ids = batches.at(step, length)
        total = torch.zeros((), device=a.device)
        for part in parts(ids, a.device):
            with half_precision(a.device):
                logits = model(part[:, :-1])
            loss = F.cross_entropy(logits.view(-1, config.vocab_size).float(), part[:, 1:].reshape(-1)) * len(part) / len(ids)
            loss.backward()
            total += loss.detach()
        for o in optimizer:
            o.step()
            o.zero_grad(set_to_none=True)
        mean += (total - mean) / (step % a.every + 1)
        step += 1
        if step % 10 == 0 or step < 3:  # the host waits for the device here, and only here: the clock below is right to ten steps
            print(f"{step} loss {total.item():.3f} mean {float(mean):.3f} {time.time() - began:.0f} s", flush=True)
        done = progress.at(step)
        if step % a.every == 0 or done >= 1:
            weights = {name: p.to(torch.bfloat16) for name, p in model.state_dict().items()}
            save({"step": step, "model": weights}, a.out / "weights.pt")
            save({"step": step, "model": model.state_dict(), "optimizer": [o.state_dict() for o in optimizer]}, a.out / "checkpoint.pt")
            with half_precision(a.device):
                nats = held_out_loss(model, held_out[sample] if done < 1 else held_out, length, a.device)
            row = {"step": step, "tokens": step * a.batch, "layers": model.c.n_layers,
                   "loss": round(float(mean), 4), "heldOut": round(nats, 4), "seconds": round(time.time() - began)}
            print(json.dumps(row), flush=True)
            print(json.dumps(row), file=log, flush=True)
            mean = 0.0


if __name__ == "__main__":
    main()
