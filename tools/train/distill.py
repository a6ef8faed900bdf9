"""A LoRA adapter for a plan, by the authors' recipe: python distill.py DATA CHECKPOINT OUT --plan P2-D0-S4-E20 --steps N | --seconds S

Teacher: the same weights, layer by layer. Student: the plan, with a LoRA of rank 32 and alpha 32 on all seven projections of every
layer. Loss: forward KL at temperature 1. AdamW, weight decay 0.1; the authors' rate of 1e-4 is for 8,000 steps, so a shorter run takes
a higher one. OUT gets a PEFT folder (adapter_config.json, adapter_model.safetensors) and distill.jsonl.
"""
import argparse
import copy
import json
import re
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from export import huggingface_name, load, write_json
from model import Model, Plan
from train import Batches, Progress, half_precision, parts

RANK = ALPHA = 32
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoRA(nn.Module):
    """W -> W + (alpha / rank) B A; B starts at zero, so the student starts as the plan without an adapter."""

    def __init__(self, rows: int, cols: int):
        super().__init__()
        self.A = nn.Parameter(torch.randn(RANK, cols) / cols**0.5)
        self.B = nn.Parameter(torch.zeros(rows, RANK))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (ALPHA / RANK) * (self.B @ self.A)


def parse_plan(spec: str, n_layers: int) -> Plan:
    """The authors' shorthand: S inclusive, E exclusive, a shorter last group."""
    values = {m[0]: int(m[1:]) for m in re.findall(r"[PDSE]\d+", spec)}
    size, start, end = values["P"], values.get("S", 0), values.get("E", n_layers)
    groups = [tuple(range(i, min(i + size, end))) for i in range(start, end, size)]
    return Plan(tuple(g for g in groups if len(g) > 1), values.get("D", 0))


def with_lora(model: Model) -> Model:
    student = copy.deepcopy(model).requires_grad_(False)
    for layer in student.layers:
        for name in PROJECTIONS:
            linear = getattr(layer, name)
            parametrize.register_parametrization(linear, "weight", LoRA(*linear.weight.shape))
    return student


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over positions of KL(teacher || student), nats."""
    p, q = teacher.float().log_softmax(-1), student.float().log_softmax(-1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1).mean()


def save_adapter(student: Model, out: Path) -> None:
    tensors = {}
    for i, layer in enumerate(student.layers):
        for name in PROJECTIONS:
            lora = getattr(layer, name).parametrizations.weight[0]
            module = "base_model.model." + huggingface_name(f"layers.{i}.{name}")
            tensors[f"{module}.lora_A.weight"] = lora.A.detach().to(torch.bfloat16).contiguous()
            tensors[f"{module}.lora_B.weight"] = lora.B.detach().to(torch.bfloat16).contiguous()
    save_file(tensors, str(out / "adapter_model.safetensors"), metadata={"format": "pt"})
    write_json(out / "adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0, "bias": "none",
        "target_modules": list(PROJECTIONS), "fan_in_fan_out": False, "inference_mode": True,
    })


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("data", type=Path)
    args.add_argument("checkpoint", type=Path)
    args.add_argument("out", type=Path)
    args.add_argument("--plan", required=True)
    args.add_argument("--steps", type=int)
    args.add_argument("--seconds", type=float, help="instead of --steps: end by the clock")
    args.add_argument("--batch", type=int, default=4096, help="tokens per step")
    args.add_argument("--rate", type=float, default=1e-3)
    args.add_argument("--seed", type=int, default=2)
    args.add_argument("--device", default="cpu")
    a = args.parse_args()
    progress = Progress(a.steps, a.seconds)
    torch.manual_seed(a.seed)
    a.out.mkdir(parents=True, exist_ok=True)
    teacher = load(a.checkpoint).to(a.device).requires_grad_(False)
    student = with_lora(teacher).to(a.device)
    plan = parse_plan(a.plan, teacher.c.n_layers)
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=a.rate, weight_decay=0.1)
    batches = Batches(a.data, a.batch, a.seed, a.device)
    log = (a.out / "distill.jsonl").open("w")
    began, mean = time.time(), 0.0
    step, done = 0, progress.at(0)
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = a.rate * min((step + 1) / 20, 1 - done)
        ids = batches.at(step, teacher.c.context // 2)[:, :-1]
        total = 0.0
        for part in parts(ids, a.device):
            with half_precision(a.device):
                with torch.no_grad():
                    target = teacher(part)
                loss = kl(target, student(part, plan)) * len(part) / len(ids)
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean += (total - mean) / (step % 10 + 1)
        step += 1
        done = progress.at(step)
        if step % 10 == 0:
            row = {"step": step, "tokens": step * a.batch, "kl": round(mean, 5), "seconds": round(time.time() - began)}
            print(json.dumps(row), flush=True)
            print(json.dumps(row), file=log, flush=True)
            mean = 0.0
        if step % 100 == 0 or done >= 1:
            save_adapter(student, a.out)


if __name__ == "__main__":
    main()
