"""Training of small models on the bundled calibration text: a mixture of experts, a hybrid and a Llama.

Run manually; on an otherwise idle machine with two cores, each of the first two takes about five minutes, and the Llama
about half an hour:

    python3 packaging/bootstrap.py exec --extra test env PYTHONPATH=. python tests/benchmarks/small_models.py WORK

Writes WORK/mixture (Qwen3-MoE, 28 M weights, 16 experts of which 4 process a token), WORK/hybrid (Qwen 3.5 text, 9 M
weights, three blocks with Gated DeltaNet for each block with full attention) and WORK/llama (26 M weights), and prints
the perplexity on the bundled evaluation text. The experts of a trained mixture differ, and the router uses them
unequally: comparisons of quantization errors need this, and random weights do not have it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from core.calibration.text import BUILTIN, documents
from core.events import ignore_event
from core.inference import evaluate

VOCABULARY = 4096
SEQLEN, BATCH, WARM_UP = 256, 4, 20
END_OF_TEXT = "<|endoftext|>"
CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def mixture_config() -> Any:
    """Return the config of the mixture of experts."""
    from transformers import Qwen3MoeConfig

    return Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=512, moe_intermediate_size=512, num_experts=16, num_experts_per_tok=4,
        norm_topk_prob=True, router_aux_loss_coef=0.01, max_position_embeddings=2048, eos_token_id=0,
    )  # fmt: skip


def hybrid_config() -> Any:
    """Return the config of the model with Gated DeltaNet."""
    from transformers import Qwen3_5TextConfig

    return Qwen3_5TextConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2,
        head_dim=64, intermediate_size=768, linear_key_head_dim=64, linear_value_head_dim=64, linear_num_key_heads=4,
        linear_num_value_heads=4, max_position_embeddings=2048, eos_token_id=0,
    )  # fmt: skip


def llama_config() -> Any:
    """Return the config of the Llama, whose embeddings are tied."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
        intermediate_size=1408, tie_word_embeddings=True, max_position_embeddings=2048, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip


CONFIGS = {"mixture": mixture_config, "hybrid": hybrid_config, "llama": llama_config}


def train_tokenizer(texts: list[str]) -> Any:
    """Return a byte-level BPE tokenizer with VOCABULARY tokens, trained on the texts; END_OF_TEXT is token 0."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, chat_template=CHAT_TEMPLATE
    )


def training_rows(tokenizer: Any, texts: list[str]) -> Tensor:
    """Return the token ids of the texts with END_OF_TEXT between them, int64 [rows, SEQLEN]."""
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    ids = [token for text in encoded for token in (*text, tokenizer.eos_token_id)]
    rows = len(ids) // SEQLEN
    return torch.tensor(ids[: rows * SEQLEN]).view(rows, SEQLEN)


def train(config: Any, rows: Tensor, steps: int, lr: float) -> Any:
    """Return a model in float32 that was trained with AdamW for `steps` batches of rows, int64 [rows, SEQLEN].

    The learning rate rises linearly during WARM_UP steps and falls to a tenth along a cosine.
    """
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    mixture = hasattr(config, "num_experts_per_tok")
    matrices = [value for value in model.parameters() if value.ndim >= 2]
    vectors = [value for value in model.parameters() if value.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)

    def factor(step: int) -> float:
        decay = 0.55 + 0.45 * math.cos(math.pi * step / steps)
        return min(1.0, (step + 1) / WARM_UP) * decay

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    order = torch.cat([torch.randperm(len(rows)) for _ in range(-(-steps * BATCH // len(rows)))])
    started = time.monotonic()
    model.train()
    # The router's auxiliary loss, which keeps all experts in use, is part of `loss` with output_router_logits.
    extra = {"output_router_logits": True} if mixture else {}
    for step in range(steps):
        batch = rows[order[step * BATCH : (step + 1) * BATCH]]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch, use_cache=False, **extra).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 25 == 24:
            row = {"step": step + 1, "loss": round(loss.item(), 3), "seconds": round(time.monotonic() - started)}
            print(json.dumps(row), flush=True)
    return model.eval()


@torch.inference_mode()
def expert_figures(model: Any, windows: Tensor) -> dict[str, Any]:
    """Return the use of the experts on token ids, int64 [rows, seqlen], and the similarity of their weights.

    `smallest_share` and `largest_share` are the extremes over blocks and experts of the share of tokens that an expert
    processes, relative to an equal distribution. `similarity` is the mean cosine similarity between the weights of two
    experts of a block.
    """
    config = model.config
    counts = torch.zeros(config.num_hidden_layers, config.num_experts)
    for row in windows:
        found = model(input_ids=row[None], use_cache=False, output_router_logits=True).router_logits
        for block, logits in enumerate(found):
            chosen = logits.topk(config.num_experts_per_tok, dim=-1).indices
            counts[block] += torch.bincount(chosen.flatten(), minlength=config.num_experts)
    shares = counts / counts.mean(dim=1, keepdim=True)
    similarities = []
    for block in model.model.layers:
        weights = block.mlp.experts.down_proj.float().flatten(1)
        pairs = cosine_similarity(weights[:, None], weights[None], dim=-1)
        similarities.append(pairs[~torch.eye(len(pairs), dtype=torch.bool)].mean())
    return {
        "smallest_share": round(float(shares.min()), 3),
        "largest_share": round(float(shares.max()), 3),
        "similarity": round(float(torch.stack(similarities).mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", choices=tuple(CONFIGS))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--lr", type=float, default=2e-3)
    options = parser.parse_args()
    texts = list(documents(BUILTIN, ignore_event))
    tokenizer = train_tokenizer(texts)
    rows = training_rows(tokenizer, texts)
    windows = evaluate.make_windows(tokenizer, seqlen=SEQLEN).tokens
    for name, config in CONFIGS.items():
        if options.only not in (None, name):
            continue
        model = train(config(), rows, options.steps, options.lr)
        model = model.to(torch.bfloat16)
        model.save_pretrained(options.work / name)
        tokenizer.save_pretrained(options.work / name)
        model = model.float()  # the saved weights, without the rounding of 16-bit products
        found = evaluate.perplexity(model, windows)
        row = {"model": name, "weights": sum(value.numel() for value in model.parameters())}
        row |= {"training_tokens": options.steps * BATCH * SEQLEN, "perplexity": round(found.value, 3)}
        row |= {"standard_error": round(found.standard_error, 3)}
        row |= expert_figures(model, windows) if name == "mixture" else {}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
