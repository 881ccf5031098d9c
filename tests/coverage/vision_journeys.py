"""The journey of a user in the window with a vision-language model, without fakes; run manually:

    QT_QPA_PLATFORM=offscreen python3 packaging/bootstrap.py exec --extra test \\
        python -m tests.coverage.vision_journeys WORK [NAME ...]

For each tiny model of `tests.core.tiny_vision`: open its folder, quantize it, and ask the result about a picture in the
chat, with temperature 0. The answer is compared with the one that transformers generates with the dequantized weights.
Prints a line for each model, and writes pictures of the model page, the map, the report and the chat to WORK/NAME.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PySide6.QtCore import QCoreApplication, QElapsedTimer, QEventLoop, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QSpinBox, QWidget

from app.application import make_application
from app.frame.main_window import MainWindow
from app.logs import LogFeed
from app.pages.chat.page import ChatPage
from app.pages.chat.session import ChatSession
from app.state import State
from app.theme import Theme
from core.inference.generation.chat import load
from core.inference.loader import load_model
from core.inference.runners.module import ModuleRunner
from tests.app.find import find
from tests.core.tiny_vision import FAMILIES, save_vision_model

QUESTION, TOKENS, SECONDS = "What is in this picture?", 8, 300
"""The question, the tokens of an answer, and the longest wait."""


def wait(condition: Any, what: str) -> None:
    """Process events until a condition holds."""
    clock = QElapsedTimer()
    clock.start()
    while not condition():
        QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 50)
        if clock.elapsed() > 1000 * SECONDS:
            raise TimeoutError(what)


def look(window: QWidget, path: Path) -> None:
    """Write a picture of the window after its pending events."""
    QTest.qWait(300)
    window.grab().save(str(path))


def journey(window: MainWindow, name: str, work: Path) -> str:
    """Return the answer of the quantized model in the window."""
    context = window.context
    assert context is not None
    window.open_words(str(save_vision_model(name, work / "model")))
    wait(lambda: context.draft.model is not None and str(work) in context.draft.model.name, "opening")
    look(window, work / "model.png")
    window.go("layers")
    look(window, work / "layers.png")
    scheme = dataclasses.replace(context.draft.choices.bits_map.default, group_size=32)
    small = dataclasses.replace(context.draft.choices.recipe, iters=4, samples=4, seqlen=64)
    bits_map = dataclasses.replace(context.draft.choices.bits_map, default=scheme)
    context.draft.choose(recipe=small, bits_map=bits_map, device="cpu", output=str(work / "out"))
    assert context.draft.problem() == "", context.draft.problem()
    ended: list[Any] = []
    context.runs.ended.connect(ended.append)
    QTest.keyClick(window, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    wait(lambda: ended, "the run")
    assert ended[0].state == "done", ended[0]
    window.go("run")
    look(window, work / "report.png")
    QTest.keyClick(window, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    chat = window.stack.page("chat")
    assert isinstance(chat, ChatPage)
    wait(chat.isVisible, "the chat")
    return ask(window, chat, work)


def ask(window: MainWindow, chat: ChatPage, work: Path) -> str:
    """Attach the picture, ask about it and return the answer."""
    single = chat.single
    single.chat_view.composer.attach([str(work / "picture.png")])
    wait(lambda: single.chat_view.composer.pictures, "the thumbnail")
    find(single.panel, QSpinBox, "sampling_max_tokens").setValue(TOKENS)
    single.chat_view.composer.set_text(QUESTION)
    answers: list[Any] = []
    find(chat, ChatSession).answered.connect(answers.append)
    wait(lambda: single.chat_view.composer._sendable, "the button")
    field = single.chat_view.composer.focusProxy()
    assert field is not None
    QTest.keyClick(field, Qt.Key.Key_Return)
    wait(lambda: answers, "the answer")
    look(window, work / "chat.png")
    last = single.conversation.last
    assert last is not None
    return last.text


def of_transformers(folder: Path, picture: Path) -> str:
    """Return the answer that transformers generates with the dequantized weights of a checkpoint."""
    talk = load(str(folder), "cpu")
    runner: Any = talk.loaded.runner
    assert isinstance(runner, ModuleRunner)
    prompt = talk.prompts.write([{"role": "user", "content": QUESTION, "pictures": (str(picture),)}])
    assert prompt.pictures is not None
    arguments = runner._picture_arguments(prompt.pictures, len(prompt.ids))
    model = load_model(str(folder), "cpu", talk.loaded.dtype).model  # type: ignore[attr-defined]
    ids = torch.tensor([prompt.ids])
    made = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **arguments, max_new_tokens=TOKENS, do_sample=False,
        eos_token_id=sorted(talk._ends), pad_token_id=0,
    )  # fmt: skip
    return str(talk.loaded.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))


def main() -> None:
    """Print a line for each model."""
    place = Path(sys.argv[1]).absolute()
    os.environ["BITWRIGHT_HOME"] = str(place / "home")
    _application = make_application(sys.argv[:1])
    for name in sys.argv[2:] or list(FAMILIES):
        work = place / name
        work.mkdir(parents=True)
        pixels = np.random.default_rng(3).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(work / "picture.png")
        window = MainWindow(Theme(), State(work / "window.ini"), LogFeed())
        ready: list[bool] = []
        window.stack.complete.connect(lambda ready=ready: ready.append(True))
        window.resize(1200, 800)
        window.show()
        wait(lambda ready=ready: ready, "the window")
        try:
            found = journey(window, name, work)
            expected = of_transformers(work / "out", work / "picture.png")
            # the chat shows whole characters only
            same = found.rstrip("\ufffd").strip() == expected.rstrip("\ufffd").strip()
            print(f"{name:14} {'equal' if same else 'DIFFERS'} {found!r} {expected!r}")
        except (AssertionError, TimeoutError) as error:
            look(window, work / "failed.png")
            print(f"{name:14} FAILED {error}")
        window.leave_now()


if __name__ == "__main__":
    main()
