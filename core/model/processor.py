"""The processor of a vision-language model: from a prompt with pictures to the inputs of the model.

The parts are those of transformers, loaded from the model's folder. Image processors are the ones that only need
Pillow; the parts for videos and sound, some of which need torchvision or torchaudio, are left out. Code of the model is
never run.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from core.errors import BadInput, UnsupportedModel, translated
from core.files import read_json
from core.model.folder import read_config
from core.model.tokenizer import readable
from core.pictures.opening import MAX_EDGE, Picture, check_picture, digest_of, missing_pillow, open_picture

if TYPE_CHECKING:
    from PIL.Image import Image

_FILES: Final = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files that name the processor's class, in the order in which transformers looks."""
_LEFT_OUT: Final = ("video_processor", "feature_extractor", "audio_processor")
"""Parts that are not needed for pictures."""
_TEXT_ONLY: Final = "Ask this model without pictures."
_IGNORED: Final = (
    "processor_class", "auto_map", "chat_template", "audio_tokenizer", "image_processor", "tokenizer", *_LEFT_OUT,
)  # fmt: skip
"""Entries of processor_config.json that are not settings of the processor itself. An audio tokenizer is a model from
another repository."""
MAX_ALL_PIXELS: Final = 256_000_000
"""Most pixels of all pictures of a conversation, which are decoded at once."""
_SMALLEST: Final = 32
"""Shortest edge of a picture in pixels."""
_FOR_VIDEOS: Final = ("num2words",)
"""Libraries that a processor (SmolVLM) requires when it is made, but uses for videos only."""


@dataclass(frozen=True)
class PictureInputs:
    """A prompt with pictures, as the arguments of a model's forward pass with a batch of one.

    Attributes:
        ids: token ids, with those that stand for pictures.
        digests: of the pictures, in their order.
        end: number of tokens up to the last one of a picture.
        arguments: tensors by the name of the argument, without `input_ids` and `attention_mask`.
        per_token: those of the arguments that have a value for each token, [1, tokens].
    """

    ids: tuple[int, ...]
    digests: tuple[str, ...]
    end: int
    arguments: Mapping[str, Tensor]
    per_token: frozenset[str]

    def sized(self, tokens: int) -> dict[str, Tensor]:
        """Return the arguments for the first `tokens` tokens; further tokens, of text, have the value 0."""
        found = dict(self.arguments)
        for name in self.per_token:
            values = found[name][:, :tokens]
            found[name] = torch.nn.functional.pad(values, (0, tokens - values.shape[1]))
        return found


class _SharedSettings(dict[str, Any]):
    """Settings of an image processor in place of a video processor, as attributes; transformers logs them as JSON."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class PictureProcessor:
    """The processor of one model.

    Attributes:
        mark: text that stands for a picture in a prompt, such as `<|image_pad|>`.
    """

    def __init__(self, processor: Any) -> None:
        """Wrap a processor of transformers."""
        self._processor = processor
        self.mark = _mark_of(processor)
        self._last: tuple[tuple[str, tuple[str, ...]], PictureInputs] | None = None
        tokenizer = processor.tokenizer
        named = [tokenizer.convert_tokens_to_ids(self.mark)]
        for owner in (processor, tokenizer):
            several = getattr(owner, "image_token_ids", None)
            named += [getattr(owner, "image_token_id", None), *(several if isinstance(several, list) else ())]
        self._picture_ids = frozenset(number for number in named if type(number) is int)

    def inputs(self, text: str, sources: Sequence[str]) -> PictureInputs:
        """Return the inputs of the model for a prompt. The last result is kept.

        Args:
            text: the prompt, with the mark of each picture.
            sources: paths or data URIs of the pictures, in the order of their marks.

        Raises:
            BadInput, CorruptFile, OutOfMemory: a picture cannot be opened, or the processor does not accept it.
            BadInput: the text has another number of marks.
        """
        found = text.count(self.mark)
        if found != len(sources):
            raise BadInput(
                f"There are {len(sources)} pictures, but {found} places for pictures ({self.mark}) in the prompt.",
                f"Do not write {self.mark} in a message.",
            )
        key = (text, tuple(map(digest_of, sources)))
        if self._last is None or self._last[0] != key:
            _check_sizes(sources)
            self._last = (key, self._made(text, [open_picture(source) for source in sources]))
        return self._last[1]

    def _made(self, text: str, pictures: Sequence[Picture]) -> PictureInputs:
        hint = "Use another picture, with an ordinary ratio of width to height."
        problem = "The model's processor does not accept the pictures"
        with translated(BadInput, problem, hint):
            made = self._processor(
                text=[text],
                images=[_enlarged(picture.image) for picture in pictures],
                return_tensors="pt",
                text_kwargs={"add_special_tokens": False},
            )
            tensors = {name: value for name, value in made.items() if isinstance(value, Tensor)}
            ids = tuple(tensors.pop("input_ids")[0].tolist())
        for name in ("attention_mask", "labels"):
            tensors.pop(name, None)
        per_token = frozenset(name for name, value in tensors.items() if tuple(value.shape) == (1, len(ids)))
        digests = tuple(picture.digest for picture in pictures)
        return PictureInputs(ids, digests, self._end(text, ids), tensors, per_token)

    def _end(self, text: str, ids: Sequence[int]) -> int:
        """Return the number of tokens of a prompt up to the last one of a picture, or a few more.

        The text after the last mark stays as it is. Some processors replace marks by tokens that they do not name.
        """
        rest = self._processor.tokenizer(text.rpartition(self.mark)[2], add_special_tokens=False)["input_ids"]
        last = max((number + 1 for number, token in enumerate(ids) if token in self._picture_ids), default=0)
        return max(last, len(ids) - len(rest))


def _mark_of(processor: Any) -> str:
    """Return the text that stands for a picture in a prompt, before the processor replaces it; "" if there is none."""
    found = (getattr(processor, name, None) for name in ("image_placeholder_token", "image_token"))
    return next((mark for mark in found if isinstance(mark, str)), "")


def _check_sizes(sources: Sequence[str]) -> None:
    """Raise BadInput for pictures that would take too much memory together."""
    found = sum(facts.width * facts.height for facts in map(check_picture, sources))
    if found > MAX_ALL_PIXELS:
        raise BadInput(
            f"The pictures of the conversation have {found // 1_000_000} million pixels; the limit is "
            f"{MAX_ALL_PIXELS // 1_000_000} million.",
            "Use fewer or smaller pictures.",
        )


def _enlarged(image: Image) -> Image:
    """Return a picture whose edges have at least `_SMALLEST` pixels: some processors make no patch of a smaller one."""
    edge = min(image.size)
    if edge >= _SMALLEST:
        return image
    factor = -(-_SMALLEST // edge)
    width, height = (min(size * factor, MAX_EDGE) for size in image.size)
    return image.resize((width, height))


def load_processor(folder: Path, tokenizer: Any) -> PictureProcessor:
    """Return the processor of a model folder.

    Args:
        tokenizer: the model's tokenizer, which the processor uses. A processor may add special tokens to it.

    Raises:
        UnsupportedModel: there is no processor, or transformers needs torchvision for it or cannot read it.
        MissingDependency: Pillow is not installed.
        CorruptFile: a file of it is damaged.
    """
    if problem := missing_pillow():
        raise problem
    kind = _class_of(folder)
    problem_text = f"The picture processor in {folder} cannot be read"
    hint = "Download preprocessor_config.json and processor_config.json of the model again."
    with readable(folder) as place, translated(UnsupportedModel, problem_text, hint), _not_needed(kind):
        parts: dict[str, Any] = {"image_processor": _image_processor(folder, place), "tokenizer": tokenizer}
        if "video_processor" in kind.get_attributes():
            # Some processors read settings of it, which it shares with the image processor.
            parts["video_processor"] = _SharedSettings(parts["image_processor"].to_dict())
        parts = {name: parts.get(name) for name in kind.get_attributes()}
        unknown = parts.keys() - {"image_processor", "tokenizer", *_LEFT_OUT}
        if unknown:
            raise UnsupportedModel(f"The processor of this model has a part {min(unknown)}.", _TEXT_ONLY)
        settings = {key: value for key, value in _settings(folder, _FILES[0]).items() if key not in _IGNORED}
        made = _partial(kind).from_args_and_dict([*parts.values()], settings)
    if not _mark_of(made):
        raise UnsupportedModel(
            f"Prompts for {kind.__name__} of transformers have no place for pictures.",
            _TEXT_ONLY,
        )
    return PictureProcessor(made)


def _class_of(folder: Path) -> Any:
    """Return the processor class that the files of a folder name, or else that of the model type.

    Raises:
        UnsupportedModel: there is none in transformers, or it cannot be used without torchvision.
    """
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    model_type = str(read_config(folder).get("model_type", ""))
    named = (_settings(folder, file).get("processor_class") for file in _FILES)
    known = _names(PROCESSOR_MAPPING_NAMES.get(model_type))
    name = next((name for name in (*named, *known) if isinstance(name, str)), "")
    found = _find_class(name) if name else None
    if found is None:
        raise UnsupportedModel(f"transformers has no picture processor for {model_type or folder}.", _TEXT_ONLY)
    return found


def _find_class(name: str) -> Any:
    """Return a processor class of transformers by name, also one that is marked as depending on torchvision."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    classes: Mapping[str, Any] = PROCESSOR_MAPPING_NAMES
    names = {model_type_to_module_name(kind) for kind, known in classes.items() if name in _names(known)}
    words = re.sub(r"Processor$", "", name)
    for module in sorted({*names, re.sub(r"(?<!^)(?=[A-Z])", "_", words).lower(), words.lower()}):
        found = getattr(_import_processing(module), name, None)
        if found is not None:
            return found
    return None


def _names(known: Any) -> tuple[Any, ...]:
    """Return the class names of an entry of transformers' tables: one name or several."""
    return tuple(known) if isinstance(known, tuple | list) else (known,)


def _import_processing(family: str) -> Any:
    """Import the module of the processors of a family, or return None.

    Pixtral's module takes a function from the module of the image processor for torchvision; that for Pillow has the
    same function.
    """
    place = f"transformers.models.{family}"
    with contextlib.suppress(ImportError):
        return importlib.import_module(f"{place}.processing_{family}")
    default = f"{place}.image_processing_{family}"
    with contextlib.suppress(ImportError):
        sys.modules[default] = importlib.import_module(f"{place}.image_processing_pil_{family}")
        try:
            return importlib.import_module(f"{place}.processing_{family}")
        finally:
            del sys.modules[default]
    return None


def _image_processor(folder: Path, place: Path) -> Any:
    """Return the image processor of a folder that needs Pillow only; `place` is a form that transformers can read.

    Raises:
        UnsupportedModel: transformers has none without torchvision.
    """
    from transformers import AutoImageProcessor
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    needed = IMAGE_PROCESSOR_MAPPING_NAMES.get(str(read_config(folder).get("model_type", "")), {"pil": ""})
    try:
        return AutoImageProcessor.from_pretrained(place, backend="pil", trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        if "pil" not in needed or "torchvision" in str(error):
            raise UnsupportedModel("The picture processor of this model needs torchvision.", _TEXT_ONLY) from error
        raise


def _partial(kind: Any) -> Any:
    """Return a subclass of a processor class that accepts stand-ins for the parts that are left out."""

    def check(self: Any, name: str, part: Any) -> Any:
        return None if name in _LEFT_OUT else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check, "__init__": kind.__init__})


@contextlib.contextmanager
def _not_needed(kind: Any) -> Iterator[None]:
    """Let a processor be made without the libraries that it only uses for videos."""
    module = vars(sys.modules[kind.__module__])
    missing = [name for name in _FOR_VIDEOS if name in module and module[name] is None]
    module.update(dict.fromkeys(missing, True))
    try:
        yield
    finally:
        module.update(dict.fromkeys(missing))


def _settings(folder: Path, file: str) -> Mapping[str, Any]:
    value = read_json(folder / file) if (folder / file).is_file() else {}
    return value if isinstance(value, dict) else {}
