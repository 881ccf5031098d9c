"""Training of a small vision-language model that reads drawn digits, and its accuracy before and after quantization.

Run manually; on two cores the training takes about fifteen minutes, and each measured row one to three:

    python3 packaging/bootstrap.py exec --extra test python -m tests.benchmarks.vision_model train WORK
    python3 packaging/bootstrap.py exec --extra test python -m tests.benchmarks.vision_model measure WORK

`train` writes WORK/digits (Qwen3-VL with M-RoPE and DeepStack, 8 M weights), which answers "Which digits are these?"
about pictures of 32 x 32 pixels with two digits, and WORK/pairs, pictures with captions for calibration. As in the
training of larger models, the vision tower is trained first, here to classify the digits, and then the whole model, on
questions about pictures and on the bundled calibration text. All of it is in float32: on CPUs without bfloat16
products, a step with autocast takes over ten times as long. `measure` quantizes the model to several numbers of bits in
groups of 64, by rounding, tuned with text alone, with text and pairs, and with the tower in fewer bits as well, and
prints the share of 1,000 unseen pictures of which both digits are right, with its standard error, and the loss per
digit, by transformers in float32. With --chat, some pictures are asked one by one in the chat of Bitwright as well.
Outputs that exist in WORK are not quantized again.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from core.calibration.text import BUILTIN, documents
from core.events import Result, ignore_event
from core.inference.loader import load_model
from core.model.chat_template import ChatTemplate
from core.model.processor import load_processor
from core.model.tokenizer import load_tokenizer
from tests.benchmarks.measured_run import BIN
from tests.benchmarks.small_models import train_tokenizer, training_rows

SIDE, QUESTION = 32, "Which digits are these?"
BATCH, WARM_UP = 48, 30
PICTURES, UNSEEN, CHATS = 12_000, 1000, 60
SPECIAL: Final = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
TEMPLATE: Final = (
    "{%- for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROCESSOR: Final = {
    "image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor", "patch_size": 8,
    "temporal_patch_size": 2, "merge_size": 2, "size": {"shortest_edge": 256, "longest_edge": 4096},
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
METHODS: Final = {
    "rtn": ["--recipe", "rtn"],
    "text": ["--recipe", "light"],
    "text and pairs": ["--recipe", "light", "--pictures", "pairs"],
    "text, tower 8 bits": ["--recipe", "light", "--tower-bits", "8"],
    "text, tower 4 bits": ["--recipe", "light", "--tower-bits", "4"],
}


def draw(seed: int) -> tuple[Any, str]:
    """Return a picture of two digits, and the digits."""
    from PIL import Image, ImageDraw, ImageFont

    chance = random.Random(seed)
    digits = [str(chance.randrange(10)) for _ in range(2)]
    picture = Image.new("RGB", (SIDE, SIDE), tuple(chance.randrange(200, 256) for _ in range(3)))
    pen = ImageDraw.Draw(picture)
    for number, digit in enumerate(digits):
        place = (3 + 14 * number + chance.randrange(-2, 3), 4 + chance.randrange(-3, 4))
        color = tuple(chance.randrange(0, 110) for _ in range(3))
        pen.text(place, digit, fill=color, font=ImageFont.load_default(chance.randrange(18, 23)))
    return picture, "".join(digits)


def config(tokenizer: Any) -> Any:
    """Return the config of the model."""
    from transformers import Qwen3VLConfig

    text = {
        "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 2048,
        "tie_word_embeddings": True, "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [16, 8, 8]},
    }  # fmt: skip
    vision = {
        "depth": 3, "hidden_size": 192, "intermediate_size": 768, "num_heads": 4, "patch_size": 8,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 256, "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip
    names = {"image_token_id": 4, "video_token_id": 5, "vision_start_token_id": 2, "vision_end_token_id": 3}
    ids = {key: tokenizer.convert_tokens_to_ids(SPECIAL[place]) for key, place in names.items()}
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)


class Examples:
    """Batches of questions about pictures, as inputs of the model.

    Args:
        folder: of the model, with its tokenizer and processor.
    """

    def __init__(self, folder: Path) -> None:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self.tokenizer = load_tokenizer(folder)
        processor = load_processor(folder, self.tokenizer)
        question = [{"role": "user", "content": QUESTION, "pictures": ["picture"]}]
        text = ChatTemplate(self.tokenizer).render(question, picture_mark=processor.mark)
        stream = io.BytesIO()
        draw(0)[0].save(stream, "PNG")
        source = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
        self._made = {answered: processor.inputs(text + answered, [source]) for answered in ("", "00<|im_end|>\n")}
        self._digits = torch.tensor([self.tokenizer.convert_tokens_to_ids(str(digit)) for digit in range(10)])
        self._patches = Qwen2VLImageProcessorPil.from_pretrained(folder)

    def pixels(self, seeds: range) -> tuple[Tensor, Tensor]:
        """Return the patches of pictures, [pictures, patches, values], and their digits, [pictures, 2]."""
        pictures, answers = zip(*map(draw, seeds), strict=True)
        values = self._patches(list(pictures), return_tensors="pt")["pixel_values"]
        digits = torch.tensor([[int(digit) for digit in answer] for answer in answers])
        return values.reshape(len(seeds), -1, values.shape[-1]), digits

    def inputs(self, pixels: Tensor, digits: Tensor | None = None) -> dict[str, Tensor]:
        """Return the inputs of the model for the patches of pictures, with the answers if `digits` are given."""
        count = len(pixels)
        made = self._made["" if digits is None else "00<|im_end|>\n"]
        ids = torch.tensor([made.ids]).repeat(count, 1)
        if digits is not None:
            ids[:, -4:-2] = self._digits[digits]
        same = {name: value.repeat(count, 1) for name, value in made.arguments.items() if name != "pixel_values"}
        return {"input_ids": ids, **same, "pixel_values": pixels.flatten(0, 1)}


def rate_at(step: int, steps: int, rate: float) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine to a tenth of `rate`."""
    return rate * min(1.0, (step + 1) / WARM_UP) * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def steps_of(parameters: list[nn.Parameter], steps: int, rate: float, loss_of: Callable[[], Tensor], name: str) -> None:
    """Take AdamW steps on the loss, and print every 25th."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    started = time.monotonic()
    mean = 0.0
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate_at(step, steps, rate)
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean += loss.item() / 25
        if step % 25 == 24:
            row = {"stage": name, "step": step + 1, "loss": round(mean, 4), "seconds": time.monotonic() - started}
            print(json.dumps(row), flush=True)
            mean = 0.0


def train_tower(tower: Any, pixels: Tensor, digits: Tensor, grid: Tensor, steps: int, rate: float) -> None:
    """Train the vision tower to classify the two digits from all its features, by linear heads that are dropped."""
    torch.manual_seed(1)
    with torch.no_grad():
        found = tower(pixels[0], grid_thw=grid)
        width = found.pooler_output.numel() * (1 + len(found.deepstack_features))
    heads = nn.Linear(width, 20)

    def loss_of() -> Tensor:
        chosen = torch.randint(len(pixels), (4 * BATCH,))
        found = tower(pixels[chosen].flatten(0, 1), grid_thw=grid.repeat(len(chosen), 1))
        features = [found.pooler_output, *found.deepstack_features]
        scores = heads(torch.cat([one.reshape(len(chosen), -1) for one in features], dim=1))
        return nn.functional.cross_entropy(scores.reshape(-1, 10), digits[chosen].flatten())

    steps_of([*tower.parameters(), *heads.parameters()], steps, rate, loss_of, "tower")


def train(work: Path, tower_steps: int, steps: int, rate: float) -> None:
    """Train the model and write it to WORK/digits, and pairs for calibration to WORK/pairs."""
    from transformers import Qwen3VLForConditionalGeneration

    folder = work / "digits"
    texts = list(documents(BUILTIN, ignore_event))
    tokenizer = train_tokenizer(texts)
    tokenizer.add_tokens([str(digit) for digit in range(10)])  # so that all answers have two tokens
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    rows = training_rows(tokenizer, texts)
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config(tokenizer))
    model.config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR), encoding="utf-8")
    examples = Examples(folder)
    pixels, digits = examples.pixels(range(1_000_000, 1_000_000 + PICTURES))
    model.train()
    grid = examples.inputs(pixels[:1])["image_grid_thw"]
    train_tower(model.model.visual, pixels, digits, grid, tower_steps, rate)

    def loss_of() -> Tensor:
        chosen = torch.randint(len(pixels), (BATCH,))
        inputs = examples.inputs(pixels[chosen], digits[chosen])
        scores = model(**inputs, use_cache=False, logits_to_keep=5).logits[:, :-1]
        answer = inputs["input_ids"][:, -4:]  # two digits and the end of the turn
        text = rows[torch.randint(len(rows), (1,))]
        further = model(input_ids=text, labels=text, use_cache=False).loss
        return nn.functional.cross_entropy(scores.flatten(0, 1), answer.flatten()) + 0.1 * further

    steps_of(list(model.parameters()), steps, rate, loss_of, "model")
    model.bfloat16().save_pretrained(folder)
    pairs = work / "pairs"
    pairs.mkdir(exist_ok=True)
    with (pairs / "metadata.jsonl").open("w", encoding="utf-8") as stream:
        for seed in range(500_000, 500_128):
            picture, drawn = draw(seed)
            picture.save(pairs / f"{seed}.png")
            line = {"file_name": f"{seed}.png", "question": QUESTION, "answer": drawn}
            stream.write(json.dumps(line) + "\n")


@torch.inference_mode()
def accuracy(model: Any, examples: Examples) -> tuple[float, float]:
    """Return the share of unseen pictures of which the model reads both digits, and its loss in nats per digit.

    The loss is that of the right digits, each after the digits before it.
    """
    right, loss = 0, 0.0
    for first in range(0, UNSEEN, 50):
        pixels, digits = examples.pixels(range(first, first + 50))
        given = examples.inputs(pixels, digits)
        scores = model(**given, use_cache=False).logits[:, -5:-3]
        loss += nn.functional.cross_entropy(scores.flatten(0, 1), given["input_ids"][:, -4:-2].flatten()).item() * 50
        inputs = examples.inputs(pixels)
        for _ in range(2):
            scores = model(**inputs, use_cache=False).logits[:, -1]
            inputs["input_ids"] = torch.cat([inputs["input_ids"], scores.argmax(-1)[:, None]], dim=1)
            kinds = inputs["mm_token_type_ids"]
            inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(kinds[:, :1])], dim=1)
        found = examples.tokenizer.batch_decode(inputs["input_ids"][:, -2:])
        right += sum(
            one.strip() == "".join(map(str, answer)) for one, answer in zip(found, digits.tolist(), strict=True)
        )
    return right / UNSEEN, loss / UNSEEN


def asked(folder: Path, work: Path) -> float:
    """Return the share of pictures whose digits the chat of Bitwright answers."""
    from core.api import chat

    right = 0
    for seed in range(CHATS):
        picture, answer = draw(seed)
        path = work / "asked.png"
        picture.save(path)
        events = list(chat(folder, QUESTION, images=[str(path)], max_tokens=4))
        right += any(isinstance(event, Result) and event.values["text"].strip() == answer for event in events)
    return right / CHATS


def outputs(work: Path, bits: list[int]) -> Iterator[tuple[str, Path]]:
    """Yield the model and its quantized outputs, with a name for each."""
    yield "16 bits", work / "digits"
    for number in bits:
        for method, options in METHODS.items():
            output = work / f"w{number}-{method.replace(', ', '-').replace(' ', '-')}"
            if not output.exists():
                given = [str(work / option) if option == "pairs" else option for option in options]
                scheme = ["--bits", str(number), "--group-size", "64", "--seqlen", "256"]
                start = [str(BIN / "bitwright"), "quantize", str(work / "digits"), "--output", str(output)]
                subprocess.run([*start, *scheme, *given], check=True, capture_output=True)
            yield f"W{number} {method}", output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("train", "measure"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--tower-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3, 2])
    parser.add_argument("--chat", action="store_true")
    options = parser.parse_args()
    if options.action == "train":
        train(options.work, options.tower_steps, options.steps, options.lr)
        return
    examples = Examples(options.work / "digits")
    for name, folder in outputs(options.work, options.bits):
        share, loss = accuracy(load_model(str(folder), "cpu", "float32").model, examples)
        row = {"model": name, "accuracy": share, "error": round((share * (1 - share) / UNSEEN) ** 0.5, 4), "loss": loss}
        if options.chat:
            row["chat"] = asked(folder, options.work)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
