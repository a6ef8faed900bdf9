"""The LLaMA architecture in its standard form: RMSNorm, RoPE on halves, grouped-query attention, SwiGLU, tied embeddings."""
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    vocab_size: int = 4096
    dim: int = 192
    hidden_dim: int = 512
    n_layers: int = 24
    n_heads: int = 3
    n_kv_heads: int = 1
    head_dim: int = 64
    context: int = 512
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    dropout: float = 0.0  # of what a layer adds, in training alone


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class Layer(nn.Module):
    """Names of parameters are those of the Hugging Face layout, so that exporting is a copy."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        linear = lambda rows, cols: nn.Linear(cols, rows, bias=False)
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(c.dim, c.norm_eps), RMSNorm(c.dim, c.norm_eps)
        self.q_proj, self.o_proj = linear(c.n_heads * c.head_dim, c.dim), linear(c.dim, c.n_heads * c.head_dim)
        self.k_proj, self.v_proj = linear(c.n_kv_heads * c.head_dim, c.dim), linear(c.n_kv_heads * c.head_dim, c.dim)
        self.gate_proj, self.up_proj = linear(c.hidden_dim, c.dim), linear(c.hidden_dim, c.dim)
        self.down_proj = linear(c.dim, c.hidden_dim)

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        h = self.input_layernorm(x)
        heads = lambda y, n: y.view(batch, length, n, self.c.head_dim).transpose(1, 2)
        q, k, v = heads(self.q_proj(h), self.c.n_heads), heads(self.k_proj(h), self.c.n_kv_heads), heads(self.v_proj(h), self.c.n_kv_heads)
        repeat = self.c.n_heads // self.c.n_kv_heads
        q, k, v = rotate(q, cos, sin), rotate(k, cos, sin).repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))

    def mlp(self, x: Tensor) -> Tensor:
        h = self.post_attention_layernorm(x)
        return self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        drop = lambda y: F.dropout(y, self.c.dropout, self.training and self.c.dropout > 0)
        x = x + drop(self.attention(x, cos, sin))
        return x + drop(self.mlp(x))


@dataclass(frozen=True)
class Plan:
    """Groups of consecutive layers, and the bypass distance D of the "paper" formula."""

    groups: tuple[tuple[int, ...], ...] = ()
    bypass: int = 0


class Model(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.dim)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.n_layers))
        self.norm = RMSNorm(c.dim, c.norm_eps)
        angles = torch.outer(torch.arange(c.context).float(), c.rope_theta ** (-torch.arange(0, c.head_dim, 2) / c.head_dim))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02 / (2 * c.n_layers) ** 0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02)

    def hidden(self, ids: Tensor, plan: Plan = Plan()) -> Tensor:
        """ids [batch, length] -> normed hidden states [batch, length, dim]."""
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        x = self.embed_tokens(ids)
        first_of = {group[0]: group for group in plan.groups}
        j = 0
        while j < len(self.layers):
            group = first_of.get(j, (j,))
            if len(group) == 1:
                x = self.layers[j](x, cos, sin)
            else:
                a = [self.layers[k].attention(x, cos, sin) for k in group]
                bypassed = [sum(a[max(0, i - plan.bypass) : i], torch.zeros_like(x)) for i in range(len(group))]
                m = [self.layers[k].mlp(x + a[i] + bypassed[i]) for i, k in enumerate(group)]
                x = x + sum(a) + sum(m)
            j += len(group)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embed_tokens.weight)

    def forward(self, ids: Tensor, plan: Plan = Plan()) -> Tensor:
        return self.logits(self.hidden(ids, plan))


def stacked(model: Model, times: int) -> Model:
    """A deeper model whose layers are the given stack, `times` over (depth growth: the shallow one trains cheaper)."""
    deep = Model(replace(model.c, n_layers=model.c.n_layers * times))
    deep.embed_tokens.load_state_dict(model.embed_tokens.state_dict())
    deep.norm.load_state_dict(model.norm.state_dict())
    for i, layer in enumerate(deep.layers):
        layer.load_state_dict(model.layers[i % model.c.n_layers].state_dict())
    return deep
