"""Tokenizers and processors of tiny multimodal models, and inputs with a picture.

The tokenizer has the tokens that the processor class reads from it or names in its source. Sizes of the image
processor follow from the config of the model.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from tests.core.tiny_model import save_tokenizer as save_byte_tokenizer

PICTURE: Final = (48, 32)
"""Width and height of the picture."""
_TOKEN: Final = re.compile(r"tokenizer\.(\w+_token)(?:_id)?\b(?!\()")
_GUARDED: Final = re.compile(r'(?:has|get)attr\(\s*(?:self\.)?tokenizer, "(\w+?)(?:_id)?"')
_LITERAL: Final = re.compile(r"""["'](<[^"'\n {}]+>)["']""")
_USUAL: Final = {"eos_token", "bos_token", "pad_token", "unk_token", "sep_token", "cls_token"}
_ID: Final = re.compile(r"(\w+?)(_token_id|_token_index|_patch_id)")
_TEXT_TOKENS: Final = ("pad", "bos", "eos", "sep", "decoder", "forced")
_PIXELS: Final = {"shortest_edge": 256, "longest_edge": 4096, "min_pixels": 256, "max_pixels": 4096}
_NAMES: Final = {
    "merge_size": ("spatial_merge_size",),
    "image_seq_length": ("mm_tokens_per_image",),
    "img_size": ("image_size",),
}
"""Arguments of processors that have another name in the config."""
_LIKE: Final = {
    "cosmos3_omni": "qwen3_vl",
    "diffusion_gemma": "gemma4",
    "glm4v_moe": "glm4v",
    "glm_ocr": "glm4v",
    "glmga": "glm46v",
    "qwen2_5_omni_thinker": "qwen2_5_omni",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe",
    "qwen3_vl_moe": "qwen3_vl",
}
"""Model types whose checkpoints are published with the processor of another one."""
IMAGE_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "dots3_note": {"temporal_patch_size": 1},
    "paligemma": {"image_seq_length": 16},
    "gemma4": {"max_soft_tokens": 70},
    "diffusion_gemma": {"max_soft_tokens": 70},
}
PROCESSOR_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "aria": {"size_conversion": {980: 8}},
    "idefics3": {"image_seq_len": 4},
    "smolvlm": {"image_seq_len": 4},
    "granite_docling": {"image_seq_len": 1},
    "ovis2": {"image_seq_length": 16},
    "chameleon": {"image_seq_length": 4},
    **{name: {"num_image_tokens": 16} for name in ("deepseek_vl", "deepseek_vl_hybrid", "janus", "llava_onevision")},
    **{
        name: {"num_additional_image_tokens": 1}
        for name in ("llava", "llava_next", "llava_next_video", "granite4_vision")
    },
}
"""Arguments of image processors and of processors that do not follow from the config, for each model type."""
_IMAGE_TOKENS: Final = {"ovis2": "<IMG_ATOM>", "got_ocr2": "<imgpad>", "pp_chart2table": "<imgpad>"}
"""Tokens of the features of a picture, where the processor does not tell them."""
_FURTHER: Final = {"fuyu": ["|SPEAKER|", "|NEWLINE|"]}
_ATTRIBUTES: Final = {"gemma4": ["audio_token", "boa_token", "eoa_token"]}
"""Tokens that the source of a processor class does not tell in the usual way: others, and attributes of a tokenizer."""
_PROMPTS: Final = {
    "HunYuanVLProcessor": "<image_start><image><image_end>",
    **dict.fromkeys(("FuyuProcessor", "Florence2Processor"), ""),
}
_CALL: Final = {"Cosmos3EdgeProcessor": {"return_mm_token_type_ids": True}}
"""Texts that stand for a picture and arguments of the call of processors that need others than the usual ones."""
_FIXED: Final = ("GotOcr2Processor", "PPChart2TableProcessor")
"""Processors with a constant number of tokens for a picture, of 1024 pixels."""
_PIXELS_OF: Final = {"kimi_k25": (16, 3, 8, 8), "minimax_m3_vl": (16, 3 * 2 * 8 * 8), "lfm2_vl": (1, 16, 3 * 8 * 8)}
"""Shapes of the pixels of a picture of 32 by 32 pixels, where they are divided into patches."""
_GIVEN: Final[dict[str, Any]] = {
    "image_grid_thw": [[1, 4, 4]],
    "spatial_shapes": [[4, 4]],
    "pixel_attention_mask": [[1] * 16],
    "image_sizes": [[32, 32]],
}
"""Arguments of `get_image_features` for this picture."""
_TEMPLATE: Final = """\
{%- for message in messages %}{{ message['role'] + ': ' }}
{%- if message['content'] is string %}{{ message['content'] }}
{%- else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE\
{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}
{%- endif %}
{% endfor %}assistant:"""


def processor_class(name: str) -> Any:
    """Return the processor class of a model type; None if it has none, or needs a package that is not installed."""
    cls = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(_LIKE.get(name, name)) or "", None)
    return cls if cls is not None and issubclass(cls, transformers.ProcessorMixin) else None


def save_tokenizer(name: str, folder: Path, size: int) -> None:
    """Write a byte-level tokenizer with the special tokens of the processor class."""
    folder.mkdir(parents=True, exist_ok=True)
    save_byte_tokenizer(folder)
    named, others = _special_tokens(name)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    first = 1 + max(tokenizer["model"]["vocab"].values())
    for number, token in enumerate([*named.values(), *others], first):
        assert number < size, f"{name} has more than {size} tokens"
        kind = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        tokenizer["added_tokens"].append({"id": number, "content": token, **kind})
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["chat_template"]
    settings |= {"extra_special_tokens": named, "pad_token": "<eos>", "bos_token": "<eos>"}
    path.write_text(json.dumps(settings), encoding="utf-8")


def _special_tokens(name: str) -> tuple[dict[str, str], list[str]]:
    """Return the tokens that the processor reads from attributes of the tokenizer, and those that its source names."""
    cls = processor_class(name)
    if cls is None:
        return {"image_token": "<image>"}, []
    source = inspect.getsource(cls)
    named = sorted(
        token
        for token in set(_TOKEN.findall(source)) - set(_GUARDED.findall(source)) - _USUAL
        if not token.startswith("add_")
    )
    named += _ATTRIBUTES.get(_LIKE.get(name, name), [])
    tokens = {key: f"<{key.removesuffix('_token')}>" for key in named}
    return tokens, sorted(set(_LITERAL.findall(source)) - set(tokens.values()) - {"<s>", "</s>"}) + _FURTHER.get(
        name, []
    )


def build_parts(name: str, config: Any, folder: Path) -> dict[str, Any]:
    """Return the parts of the processor of a tiny model that can be used, by their names, and the whole as ""."""
    values = dict(_settings(config))
    parts: dict[str, Any] = {"tokenizer": AutoTokenizer.from_pretrained(folder)}
    image = _image_processor(name, values)
    if image is not None:
        parts["image_processor"] = image
        parts["video_processor"] = SimpleNamespace(**image.to_dict())
    features = getattr(transformers, FEATURE_EXTRACTOR_MAPPING_NAMES.get(_LIKE.get(name, name)) or "", None)
    with contextlib.suppress(ImportError):
        if features is not None:
            parts["feature_extractor"] = parts["audio_processor"] = features()
    cls = processor_class(name)
    with contextlib.suppress(ImportError):
        if cls is not None and set(cls.get_attributes()) <= set(parts):
            attributes = {key: parts[key] for key in cls.get_attributes()}
            parts[""] = _unchecked(cls)(**attributes, **_arguments(name, cls, values))
    return parts


def _unchecked(cls: Any) -> Any:
    """Return a processor class that accepts any object as its video processor, which needs torchvision."""
    return type(cls.__name__, (cls,), {"check_argument_for_proper_class": lambda *_: None})


def _arguments(name: str, cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a processor besides its parts, from the config."""
    wanted = set(inspect.signature(cls.__init__).parameters) - set(cls.get_attributes()) - {"chat_template"}
    found = {key: values[other] for key in wanted for other in (key, *_NAMES.get(key, ())) if other in values}
    return {**found, **PROCESSOR_SETTINGS.get(name, {})}


def _image_processor(name: str, values: Mapping[str, Any]) -> Any:
    cls = getattr(transformers, (IMAGE_PROCESSOR_MAPPING_NAMES.get(_LIKE.get(name, name)) or {}).get("pil") or "", None)
    if cls is None:
        return None
    made: dict[str, Any] = {}
    for key, default in cls().to_dict().items():
        other = next((other for other in (key, *_NAMES.get(key, ())) if other in values), "")
        if key.endswith("size") and isinstance(default, dict):
            made[key] = {edge: _edge(edge, size, values.get("image_size", 32)) for edge, size in default.items()}
        elif key.endswith("_pixels"):
            made[key] = _PIXELS[key]
        elif other and not isinstance(default, dict):
            made[key] = values[other]
    if isinstance(made.get("patch_size"), dict):
        made["patch_size"] = dict.fromkeys(made["patch_size"], values.get("patch_size", 8))
    return cls(**{**made, **IMAGE_SETTINGS.get(name, {})})


def _edge(edge: str, default: int, size: Any) -> int:
    if default > 3000:
        return _PIXELS[edge]
    return size if isinstance(size, int) else size[0]


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the settings of the towers, and those of the whole, which come last."""
    for value in list(vars(config).values()):
        if isinstance(value, transformers.PreTrainedConfig) and "text" not in value.model_type:
            yield from _settings(value)
    yield from config.to_dict().items()


def token_ids(name: str, config: Any, parts: Mapping[str, Any], size: int) -> dict[str, int]:
    """Return the ids of the tokens that a config names; those that the processor does not have are unused ids."""
    tokenizer, processor = parts["tokenizer"], parts.get("")
    found: dict[str, int] = {}
    for key in dict.fromkeys(_token_settings(config)):
        match = _ID.fullmatch(key)
        token = f"{match[1]}_token" if match else ""
        known = [getattr(part, f"{token}_id", None) for part in (tokenizer, processor)]
        text = getattr(processor, token, None)
        known.append(tokenizer.convert_tokens_to_ids(text) if isinstance(text, str) else None)
        size -= 1
        if key.startswith("image_token") and name in _IMAGE_TOKENS:
            known.insert(0, tokenizer.convert_tokens_to_ids(_IMAGE_TOKENS[name]))
        found[key] = next((number for number in known if number), size)
    return found


def _token_settings(config: Any) -> Iterator[str]:
    for key, value in config.to_dict().items():
        if isinstance(vars(config).get(key), transformers.PreTrainedConfig):
            yield from _token_settings(vars(config)[key])
        elif _ID.fullmatch(key) and not isinstance(value, (list, dict)) and not key.startswith(_TEXT_TOKENS):
            yield key


def save_parts(parts: Mapping[str, Any], folder: Path) -> None:
    """Write the files of a processor as they are published; its video processor has a file of its own."""
    processor = parts.get("")
    merged: dict[str, Any] = {}
    for key in ("feature_extractor", "image_processor"):
        if key in parts:
            merged |= json.loads(parts[key].to_json_string())
    if merged:
        _write(folder / "preprocessor_config.json", merged)
    if processor is None:
        return
    cls: Any = type(processor).__mro__[1]
    simple = {key: value for key, value in vars(processor).items() if isinstance(value, (int, float, str, list, dict))}
    wanted = set(inspect.signature(cls.__init__).parameters) - {"chat_template"}
    made = {"processor_class": cls.__name__, **{key: simple[key] for key in sorted(wanted & set(simple))}}
    _write(folder / "processor_config.json", made)
    if "video_processor" in cls.get_attributes():
        kind = cls.__name__.replace("Processor", "VideoProcessor")
        _write(
            folder / "video_preprocessor_config.json", vars(parts["video_processor"]) | {"video_processor_type": kind}
        )
    text = _TEMPLATE.replace("IMAGE", image_token(processor))
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(values), indent=2), encoding="utf-8")


def image_token(processor: Any) -> str:
    """Return the text in a prompt that stands for a picture; "" if no text does."""
    for part, key in (
        (processor, "image_placeholder_token"),
        (processor, "image_token"),
        (processor.tokenizer, "image_token"),
    ):
        token = getattr(part, key, None)
        if isinstance(token, str):
            return token
    return ""


def picture() -> Image.Image:
    """Return a small picture of random colours."""
    width, height = PICTURE
    return Image.fromarray(numpy.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=numpy.uint8))


def picture_inputs(model: Any, folder: Path) -> dict[str, Any]:
    """Return the inputs of a model for a text with a picture.

    If the processor cannot be used, the tokens of the picture are as many as its features; without an image processor,
    the pixels are random.
    """
    processor = load_processor(folder)
    kind = type(processor).__name__
    if processor is not None and "image_processor" in processor.get_attributes() and kind not in _FIXED:
        text = f"{_PROMPTS.get(kind, image_token(processor))}What is on this picture?"
        return dict(processor(text=text, images=[picture()], return_tensors="pt", **_CALL.get(kind, {})))
    if (folder / "preprocessor_config.json").is_file():
        image = dict(AutoImageProcessor.from_pretrained(folder)(images=[picture()], return_tensors="pt"))
    else:
        shape = _PIXELS_OF.get(model.config.model_type, (1, 3, 32, 32))
        wanted = inspect.signature(model.get_image_features).parameters
        image = {key: torch.tensor(value) for key, value in _GIVEN.items() if key in wanted}
        image["pixel_values"] = torch.rand(shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        features = model.get_image_features(**image)
    found = getattr(features, "pooler_output", None)
    found = getattr(features, "last_hidden_state", features) if found is None else found
    count = sum(tensor.shape[:-1].numel() for tensor in _tensors(found))
    ids = [60, 61, *[model.config.image_token_id] * count, 62, 63, 64]
    return {"input_ids": torch.tensor([ids]), **image}


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def load_processor(folder: Path) -> Any:
    """Return the processor of a folder; None if it has none.

    Without torchvision, transformers has no video processors; then the processor is put together from its other parts.
    """
    path = folder / "processor_config.json"
    if not path.is_file():
        return None
    try:
        return AutoProcessor.from_pretrained(folder)
    except (ImportError, OSError, ValueError, TypeError, AttributeError):
        arguments = json.loads(path.read_text(encoding="utf-8"))
    cls = getattr(transformers, arguments.pop("processor_class"))
    given: dict[str, Any] = {"tokenizer": AutoTokenizer.from_pretrained(folder)}
    if "image_processor" in cls.get_attributes():
        given["image_processor"] = AutoImageProcessor.from_pretrained(folder)
    if "feature_extractor" in cls.get_attributes():
        given["feature_extractor"] = transformers.AutoFeatureExtractor.from_pretrained(folder)
    if "video_processor" in cls.get_attributes():
        given["video_processor"] = SimpleNamespace(**given["image_processor"].to_dict())
    return _unchecked(cls)(**given, **arguments)
