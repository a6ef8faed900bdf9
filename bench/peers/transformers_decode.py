"""Milliseconds per decoded token of transformers on this GPU, for the shapes of bench/native/cuda_bench.cc: random bf16 weights, a
static cache, batch 1, context 128, eagerly and under torch.compile. Writes JSON.

    python3 bench/peers/transformers_decode.py OUTPUT.json [shape ...]
"""

import json
import statistics
import sys
import time

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

CONTEXT, TOKENS, ROUNDS = 128, 32, 5
SHAPES = {  # layers, dim, hidden, heads, kv heads, vocabulary, tied
    "smollm2-135m": (30, 576, 1536, 9, 3, 49152, True),
    "tinyllama-1.1b": (22, 2048, 5632, 32, 4, 32000, False),
    "llama-7b": (32, 4096, 11008, 32, 32, 32000, False),
}


def make_model(shape):
    layers, dim, hidden, heads, kv_heads, vocabulary, tied = shape
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=dim,
        intermediate_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=2048,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        return LlamaForCausalLM(config).eval()


def time_tokens(model, step):
    """Milliseconds per token of each round: as in cuda_bench, the logits of every token come to the host."""
    device = model.device
    cache = StaticCache(config=model.config, max_batch_size=1, max_cache_len=2 * CONTEXT, device=device, dtype=torch.bfloat16)
    prompt = torch.arange(CONTEXT, device=device)[None] * 7919 % model.config.vocab_size
    with torch.inference_mode():
        token = torch.zeros((1, 1), dtype=torch.long, device=device)
        rounds = []
        for i in range(ROUNDS + 1):
            cache.reset()
            model(prompt, past_key_values=cache, use_cache=True)
            begin = time.perf_counter()
            for _ in range(TOKENS):
                step(token, past_key_values=cache, use_cache=True).logits[0, -1].float().cpu()
            if i > 0:  # the first compiles
                rounds.append(1000 * (time.perf_counter() - begin) / TOKENS)
    return {"min": min(rounds), "median": statistics.median(rounds), "max": max(rounds)}


def main(output, *names):
    result = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "transformers": transformers.__version__, "rows": []}
    for name in names or SHAPES:
        model = make_model(SHAPES[name])
        for mode in ("eager", "compile"):
            step = model.forward if mode == "eager" else torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)
            try:
                row = {"shape": name, "mode": mode, "msPerToken": time_tokens(model, step)}
            except Exception as error:  # a version of torch that cannot compile this says so, and the rest goes on
                row = {"shape": name, "mode": mode, "error": f"{type(error).__name__}: {error}"[:200]}
            result["rows"].append(row)
            with open(output, "w") as file:  # whoever stops this has what there is
                json.dump(result, file, indent=1)
        del model
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(*sys.argv[1:])
