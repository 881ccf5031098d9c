"""The Recipe page: recipe, bits, formats, calibration text, device and output folder; a goal can set them.

Shows and changes the draft. Starts no process except a requested preview.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtGui import QGuiApplication, QHideEvent, QShowEvent
from PySide6.QtWidgets import QFileDialog, QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.pages.recipe import parameters, presets, recipe_words
from app.pages.recipe.form import RecipeForm
from app.pages.recipe.recipe_times import RecipeTimes
from app.shared.context import Context
from app.widgets.note import Note
from app.widgets.primary_button import make_primary
from core import recipes
from core.bitsmap import BitsMap
from core.errors import BitwrightError, OutputProblem
from core.estimation import costs, goals
from core.estimation.costs import Costs
from core.estimation.goals import Suggestion
from core.files import write_json
from core.home import home
from core.recipes import Recipe
from core.report.command_line import Command, command_of
from core.schemes import LayerScheme
from core.service.messages import PreviewText
from core.wording import human, time_range

_ROOM_KEY = "recipe/room"
_JOB_PARAMETERS = tuple(parameter for parameter in parameters.PARAMETERS if parameter.of_job)


class RecipePage(QWidget):
    """The second page of the window.

    Signals:
        dot_changed: The page began or ceased to have an error.
    """

    page_id = "recipe"
    dot_changed = Signal()

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = self.tr("Recipe")
        self._context, self._draft = context, context.draft
        self._times = RecipeTimes()
        self._saved = presets.saved()
        self._bases = {name: recipes.load(name) for name in recipes.NAMES} | self._saved
        self._edited: dict[str, Recipe] = {}
        self._removed: Recipe | None = None
        self._stale = True
        self._dot = False
        self.form = RecipeForm(context, context.state.value(_ROOM_KEY, 8.0), self._bases.values(), self)
        self._summary = Note(context.theme, role="", parent=self)
        self._summary.setObjectName("summary")
        self._copy = QPushButton(self.tr("Copy as command"), self)
        self._copy.setObjectName("copy-command")
        self._copy.setAutoDefault(False)
        self._copy.setToolTip(self.tr("Copy the command line of this run"))
        self._next = make_primary(QPushButton(self.tr("&Next: layers"), self), context.theme)
        self._next.setObjectName("next")
        self._lay_out()
        self._connect()

    def open_file(self, path: str | Path) -> None:
        """Import the recipe of this file and select it."""
        try:
            recipe = presets.adopt(Path(path))
        except BitwrightError as error:
            self._context.report(error, None)
            return
        self._keep(recipe)
        self.form.presets.show_message(self.tr("{name} was added to your recipes.").format(name=recipe.name))

    def dot(self) -> bool:
        """Return whether the page has an error that prevents a run."""
        return self._dot

    def showEvent(self, event: QShowEvent) -> None:
        """Update the page, and check the output folder again, which a run may have created."""
        super().showEvent(event)
        if self._stale:
            self._refresh()
        self.form.output.check()

    def hideEvent(self, event: QHideEvent) -> None:
        """Stop the preview."""
        super().hideEvent(event)
        self.form.calibration.stop()

    # --- set-up ---

    def _lay_out(self) -> None:
        line = QFrame(self)
        line.setFrameShape(QFrame.Shape.HLine)
        line.setFrameShadow(QFrame.Shadow.Sunken)
        foot = QHBoxLayout()
        foot.setSpacing(16)
        foot.addWidget(self._summary, 1)
        foot.addWidget(self._copy)
        foot.addWidget(self._next)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.form, 1)
        column.addWidget(line)
        column.addLayout(self.form.below(foot))

    def _connect(self) -> None:
        form, draft = self.form, self._draft
        draft.changed.connect(self._choices_changed)
        draft.machine_changed.connect(self._refresh_if_shown)
        form.goals.fit.connect(self._fit)
        form.goals.best.connect(self._best)
        form.goals.fast.connect(self._fast)
        form.cards.picked.connect(self._pick)
        form.presets.keep.connect(self._keep_as)
        form.presets.open.connect(self._open)
        form.presets.remove.connect(self._remove)
        form.presets.restore.connect(self._put_back)
        form.scheme.scheme_chosen.connect(self._set_scheme)
        form.scheme.formats_chosen.connect(lambda formats: self._choose(formats=formats))
        form.calibration.chosen.connect(lambda text: self._choose(calibration=text))
        form.pictures.chosen.connect(lambda path: self._choose(pictures=path))
        form.device.chosen.connect(lambda device: self._choose(device=device))
        form.output.chosen.connect(lambda folder: self._choose(output=folder))
        form.output.judged.connect(self._judge)
        form.more.turned.connect(self._turn)
        form.more.reset.connect(self._reset)
        self._copy.clicked.connect(self._copy_command)
        self._next.clicked.connect(lambda: self._context.go("layers" if self._has_model() else "model"))

    # --- from the draft to the page ---

    def _choices_changed(self) -> None:
        self.form.goals.answer("")
        self._refresh_if_shown()

    def _refresh_if_shown(self) -> None:
        self._stale = True
        if self.isVisible():
            self._refresh()

    def _refresh(self) -> None:
        self._stale = False
        draft, form, picked = self._draft, self.form, self._draft.choices
        recipe, scheme = picked.recipe, picked.bits_map.default
        base = self._bases.setdefault(recipe.name, recipe)
        form.cards.set_recipes(self._bases.values())
        for name in self._bases:
            self._update_card(name)
        form.cards.set_picked(recipe.name)
        form.presets.set_removable(recipe.name in self._saved)
        form.scheme.show_values(scheme, picked.formats, draft.fit, self._size_text())
        model = draft.model.name if draft.model else ""
        preview = PreviewText(picked.calibration, recipe.samples, recipe.seqlen, picked.seed, model)
        form.calibration.show_values(preview, recipe)
        form.pictures.show_value(picked.pictures, possible=draft.reads_pictures)
        form.device.show_devices(draft.machine.devices, draft.machine.chosen, picked.device)
        form.output.show_output(picked.output, draft.output)
        form.more.show_values(
            recipe, base, {parameter.key: getattr(picked, parameter.key) for parameter in _JOB_PARAMETERS}
        )
        self._summary.set_text(self._summary_text(), "")
        self._copy.setVisible(self._has_model())
        pick = self.tr("Select a model") if draft.model is None else self.tr("Select another model")
        self._next.setText(self.tr("&Next: layers") if self._has_model() else pick)

    def _has_model(self) -> bool:
        """Return whether there is a model that can be quantized."""
        return self._draft.model is not None and not self._draft.model.tree.refusal

    def _update_card(self, name: str) -> None:
        draft, base = self._draft, self._bases[name]
        current = draft.choices.recipe
        shown = current if name == current.name else self._edited.get(name, base)
        model = draft.model
        speed = (draft.machine.throughput or {}).get(draft.device_id)
        seconds = self._times.seconds(model.tree, shown, speed) if model and not model.tree.refusal else None
        self.form.cards.card(name).set_texts(
            shown.purpose,
            recipe_words.time_text(seconds, draft.machine, draft.device_id, model=self._has_model()),
            self.tr("Stages: {stages}").format(stages=recipe_words.stages_text(shown)),
            modified=bool(parameters.changed(shown, base)),
        )

    def _size_text(self) -> str:
        size, bits_map = self._draft.size, self._draft.choices.bits_map
        if self._draft.model is None:
            return self.tr("Select a model to see the size of the output.")
        if size is None:
            return self._draft.problem()
        text = self.tr("{small} instead of {large}, {rate:.3g} bits per weight including scales.").format(
            small=human(size.total), large=human(self._draft.model.source_bytes), rate=size.effective_bits
        )
        mixed = len(bits_map.rules) + len(bits_map.layers)
        return f"{text} {self.tr('Some layers have other bits, set on the Layers page.')}" if mixed else text

    def _summary_text(self) -> str:
        draft = self._draft
        needed, size = draft.costs, draft.size
        if draft.model is None:
            return self.tr("The defaults suit most models. Time and size are shown once a model is selected.")
        if needed is None or size is None:
            return draft.problem()
        written = sum(draft.fit(name).size for name in draft.choices.formats) or size.total
        parts = [self.tr("{size} on disk").format(size=human(written))]
        parts.append(self.tr("up to {size} of memory").format(size=human(needed.ram.high)))
        if needed.seconds is not None:
            parts.insert(0, time_range(needed.seconds.low, needed.seconds.high))
        return self.tr("Estimate: {parts}").format(parts=", ".join(parts))

    def _judge(self) -> None:
        dot = bool(self.form.output.problem)
        if dot != self._dot:
            self._dot = dot
            self.dot_changed.emit()

    # --- from the page to the draft ---

    def _choose(self, **changes: Any) -> None:
        try:
            self._draft.choose(**changes)
        except BitwrightError as error:
            self._context.report(error, None)

    def _pick(self, name: str) -> None:
        """Select the recipe of a card, with the parameters that the user set for it."""
        current = self._draft.choices.recipe
        if name == current.name:
            return
        if parameters.changed(current, self._bases.get(current.name, current)):
            self._edited[current.name] = current
        self._choose(recipe=self._edited.pop(name, self._bases[name]))

    def _turn(self, key: str, value: Any) -> None:
        if any(parameter.key == key for parameter in _JOB_PARAMETERS):
            self._choose(**{key: value})
        else:
            recipe = self._draft.choices.recipe
            self._choose(recipe=parameters.turned(recipe, self._bases[recipe.name], key, value))

    def _reset(self) -> None:
        base = self._bases[self._draft.choices.recipe.name]
        self._choose(
            recipe=base, **{parameter.key: parameters.default_of(parameter, base) for parameter in _JOB_PARAMETERS}
        )

    def _set_scheme(self, scheme: LayerScheme, text: str) -> None:
        self._draft.edit_map(replace(self._draft.choices.bits_map, default=scheme), text)

    # --- goals ---

    def _fit(self, room: float) -> None:
        self._context.state.set_value(_ROOM_KEY, self.form.goals.room)
        model, picked = self._draft.model, self._draft.choices
        if model is None or model.tree.refusal:
            missing = self.tr("Select a model first.") if model is None else model.tree.refusal
            self.form.goals.answer(missing, "warning")
            return
        found = goals.fit(model.tree, picked.bits_map.default, picked.formats[0], room)
        self._follow(found, self.tr("fit in {size}").format(size=human(room)))

    def _best(self) -> None:
        cpu = self._draft.machine.device("cpu")
        free = cpu.free_memory if cpu is not None else None
        self._follow(goals.best(self._draft.choices.bits_map.default, self._costs_of("best"), free), "")

    def _fast(self) -> None:
        needed = self._costs_of("quick")
        seconds = needed.seconds if needed is not None else None
        self._follow(goals.fast(self._draft.choices.bits_map.default, seconds), "")

    def _follow(self, found: Suggestion, text: str) -> None:
        why, bits_map = found.why, self._draft.choices.bits_map
        if found.bits is not None:
            if bits_map.rules or bits_map.layers:
                why += " " + self.tr("All layers now have the same bits. Undo restores the map.")
            self._draft.edit_map(BitsMap(replace(bits_map.default, bits=found.bits)), text)
        changes: dict[str, Any] = {}
        if found.recipe:
            self._edited.pop(found.recipe, None)
            changes["recipe"] = self._bases[found.recipe]
        if found.low_memory is not None:
            changes["low_memory"] = found.low_memory
        self._choose(**changes)
        nothing = found.bits is None and not found.recipe
        self.form.goals.answer(why, "warning" if nothing else "")

    def _costs_of(self, name: str) -> Costs | None:
        draft = self._draft
        if draft.model is None or draft.model.tree.refusal or not draft.plans:
            return None
        device = draft.device_id
        speed = (draft.machine.throughput or {}).get(device)
        spec = replace(draft.spec(), recipe=self._bases[name], low_memory=False)
        on_device = not device.startswith("cpu")
        load = draft.machine.load.get(device, 0.0)
        return costs.estimate(draft.model.tree, draft.plans, spec, speed, on_device=on_device, load=load)

    # --- user recipes ---

    def _keep_as(self, name: str) -> None:
        try:
            recipe = presets.save(self._draft.choices.recipe, name)
        except BitwrightError as error:
            self.form.presets.show_message(str(error), "bad")
            return
        self._keep(recipe)
        self.form.presets.show_message(
            self.tr("{name} was saved in {path}.").format(name=recipe.name, path=presets.folder())
        )

    def _keep(self, recipe: Recipe) -> None:
        self._bases[recipe.name] = recipe
        if recipe.name not in recipes.NAMES:
            self._saved[recipe.name] = recipe
        self._edited.pop(recipe.name, None)
        self._choose(recipe=recipe)
        self._refresh_if_shown()

    def _open(self) -> None:
        kinds = self.tr("Recipes (*.json)")
        path, _ = QFileDialog.getOpenFileName(self, self.tr("Open a recipe file"), str(presets.folder()), kinds)
        if path:
            self.open_file(path)

    def _remove(self) -> None:
        recipe = self._saved.pop(self._draft.choices.recipe.name, None)
        if recipe is None:
            return
        presets.remove(recipe.name)
        self._removed = recipe
        del self._bases[recipe.name]
        self._edited.pop(recipe.name, None)
        self._choose(recipe=self._bases["default"])
        self.form.presets.show_message(self.tr("{name} was removed.").format(name=recipe.name), undo=True)

    def _put_back(self) -> None:
        if self._removed is not None:
            self._keep(presets.save(self._removed, self._removed.name))
            self.form.presets.show_message("")

    # --- the command line ---

    def _copy_command(self) -> None:
        try:
            spec = self._draft.spec()
            # A folder for each command, so that commands copied earlier stay valid.
            mark = hashlib.sha256(json.dumps(spec.to_json(), sort_keys=True).encode()).hexdigest()[:12]
            command = command_of(spec, home() / "commands" / mark)
            _write_files(command)
        except BitwrightError as error:
            self._context.report(error, None)
            return
        QGuiApplication.clipboard().setText(command.text)
        said = self.tr("Command copied.")
        if command.files:
            names = ", ".join(str(path) for path in command.files)
            said += " " + self.tr("It reads {files}.").format(files=names)
        self._context.show_message(said)


def _write_files(command: Command) -> None:
    """Write the files that the command reads.

    Raises:
        OutputProblem: A file cannot be written.
    """
    for path, value in command.files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, value)
        except OSError as error:
            raise OutputProblem(
                f"{path} cannot be written: {error.strerror}.", "Check the folder and its permissions."
            ) from error
