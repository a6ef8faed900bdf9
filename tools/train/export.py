"""Trained model -> Hugging Face folder (safetensors in bf16): python export.py CHECKPOINT TOKENIZER_JSON OUT

`--random SEED` writes an untrained model of the same shape instead: the control of every claim about trained layers.
"""
import argparse
import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from model import Config, Model


def huggingface_name(name: str) -> str:
    name = re.sub(r"\.([qkvo]_proj)", r".self_attn.\1", name)
    return "model." + re.sub(r"\.((gate|up|down)_proj)", r".mlp.\1", name)


def write_json(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value, indent=1) + "\n")


def export(model: Model, tokenizer: Path, out: Path) -> None:
    c = model.c
    out.mkdir(parents=True, exist_ok=True)
    tensors = {huggingface_name(name): p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    save_file(tensors, str(out / "model.safetensors"), metadata={"format": "pt"})
    write_json(out / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": c.dim, "intermediate_size": c.hidden_dim,
        "num_hidden_layers": c.n_layers, "num_attention_heads": c.n_heads, "num_key_value_heads": c.n_kv_heads, "head_dim": c.head_dim,
        "vocab_size": c.vocab_size, "max_position_embeddings": c.context, "rms_norm_eps": c.norm_eps, "rope_theta": c.rope_theta,
        "rope_scaling": None, "hidden_act": "silu", "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "bfloat16",
    })
    Tokenizer.from_file(str(tokenizer)).save(str(out / "tokenizer.json"))
    end = "<|endoftext|>"
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": end, "eos_token": end, "add_bos_token": True,
        "clean_up_tokenization_spaces": False, "model_max_length": c.context,
    })
    write_json(out / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True, "temperature": 0.7})


def load(checkpoint: Path) -> Model:
    state = torch.load(checkpoint, map_location="cpu")["model"]
    layers = 1 + max(int(m[1]) for m in map(re.compile(r"layers\.(\d+)\.").match, state) if m)
    model = Model(Config(n_layers=layers))
    model.load_state_dict(state)
    return model


if __name__ == "__main__":
    args = argparse.ArgumentParser()
    args.add_argument("checkpoint", type=Path)
    args.add_argument("tokenizer", type=Path)
    args.add_argument("out", type=Path)
    args.add_argument("--random", type=int)
    a = args.parse_args()
    model = load(a.checkpoint)
    if a.random is not None:
        torch.manual_seed(a.random)
        model = Model(model.c)
    export(model, a.tokenizer, a.out)
