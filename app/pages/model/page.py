"""The Model page: search and open a model, and see its facts and the resources that a run needs.

Consists of the picker and the details. The chosen model is stored in the draft, so a model that was opened elsewhere is
shown in the same way.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QDir, Qt, QTimer, QUrl
from PySide6.QtGui import QAction, QDesktopServices, QHideEvent, QKeyEvent, QKeySequence, QShowEvent
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.pages.model.card_fetch import CardFetch
from app.pages.model.details import ModelDetails
from app.pages.model.hub_search import HubSearch
from app.pages.model.model_download import ModelDownload
from app.pages.model.opening import ModelOpening
from app.pages.model.picker import ModelPicker
from app.pages.model.welcome import ModelWelcome
from app.shared.context import Context, Remedy
from app.shared.models.name import model_name, page_of
from app.shared.models.opened import OpenedModel
from app.shared.resource_needs import free_now
from app.widgets.primary_button import make_primary
from app.widgets.view_stack import ViewStack
from core.errors import BitwrightError, HubUnreachable, ModelNotFound
from core.model_id import DEMO, looks_like_path
from core.service.messages import OpenModel

if TYPE_CHECKING:
    from app.shared.calls.calls import Call
    from app.shared.models.opened import OpenedModel

_FREE_EVERY_MS = 5000
"""Interval at which free disk space and memory are updated while the page is visible."""
_PICKER = 72
"""Maximum width of the picker in average characters."""


class ModelPage(QWidget):
    """The first page of the window."""

    page_id = "model"

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.context = context
        self.title = self.tr("Model")
        self._opening: Call | None = None
        self._opening_name = ""
        self._turn = 0
        self._stated_license = ""
        self.search = HubSearch(context.calls, self)
        self.download = ModelDownload(context.calls, self)
        self.cards = CardFetch(context.calls, self)
        self.picker = ModelPicker(context.theme, self.search)
        self.welcome = ModelWelcome(context.theme)
        self.opening = ModelOpening(context.theme)
        self.details = ModelDetails(context.theme)
        self.next = make_primary(QPushButton(self.tr("&Next: recipe")), context.theme)
        self.next.setObjectName("next")
        self._free = QTimer(self, interval=_FREE_EVERY_MS)
        self._arrange()
        self._connect()
        self.picker.set_recent(context.state.recent)
        self._show_model()

    # --- interface for the window and other pages ---

    def open_model(self, name: str) -> None:
        """Open a Hub id, a link, a folder, a GGUF file or `demo`; replaces an active opening."""
        name = model_name(name)
        if not name or (self._opening is not None and name == self._opening_name):
            return
        self._stop_opening()
        turn = self._turn
        self._opening_name = name
        self._stated_license = self._license_found(name)
        from_button = self.welcome.button.hasFocus()
        self.opening.begin("SmolLM2-135M-Instruct" if name == DEMO else name)
        self._opening = self.context.calls.start(
            OpenModel(name),
            prepare=OpenedModel.from_headers,
            on_success=lambda opened: self._opened(turn, opened),
            on_failure=lambda error: self._failed(turn, name, error),
            on_event=self.opening.follow,
        )
        self._show_model()
        if from_button:  # which is hidden now
            self.opening.bar.cancel.setFocus(Qt.FocusReason.OtherFocusReason)

    def open_folder(self) -> None:
        """Let the user choose a model folder, and open it."""
        self._open_chosen(QFileDialog.getExistingDirectory(self, self.tr("Open model folder"), self._last_folder()))

    def open_gguf(self) -> None:
        """Let the user choose a GGUF file, and open it."""
        title, kinds = self.tr("Open GGUF file"), self.tr("GGUF files (*.gguf)")
        self._open_chosen(QFileDialog.getOpenFileName(self, title, self._last_folder(), kinds)[0])

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._free.start()
        self.picker.set_recent(self.context.state.recent)
        self._show_model()
        if self.context.draft.model is None and self._opening is None:
            self.picker.focus_search()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._free.stop()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape and self._opening is not None:
            self._cancel_opening()
            return
        super().keyPressEvent(event)

    # --- construction ---

    def _arrange(self) -> None:
        self.picker.setMaximumWidth(_PICKER * self.fontMetrics().averageCharWidth())
        self._stack = ViewStack()
        for widget in (self.welcome, self.opening, self.details):
            self._stack.addWidget(widget)
        bottom = QHBoxLayout()
        bottom.addStretch(1)
        bottom.addWidget(self.next)
        right = QVBoxLayout()
        right.setSpacing(16)
        right.addWidget(self._stack, 1)
        right.addLayout(bottom)
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 16, 16, 16)
        row.setSpacing(24)
        row.addWidget(self.picker, 2)
        row.addLayout(right, 3)

    def _connect(self) -> None:
        context, overview, card = self.context, self.details.overview, self.details.card
        self.picker.picked.connect(self.open_model)
        self.picker.folder_wanted.connect(self.open_folder)
        self.picker.gguf_wanted.connect(self.open_gguf)
        self.welcome.demo_wanted.connect(lambda: self.open_model(DEMO))
        self.opening.cancelled.connect(self._cancel_opening)
        overview.download_wanted.connect(self._start_download)
        overview.download_cancelled.connect(self._cancel_download)
        overview.refusal.convert_wanted.connect(self._convert)
        self.download.changed.connect(self._show_model)
        self.download.reported.connect(overview.transfer.follow)
        self.download.finished.connect(self._downloaded)
        self.download.failed.connect(self._download_failed)
        self.cards.changed.connect(self._show_card)
        card.followed.connect(lambda address: QDesktopServices.openUrl(QUrl(address)))
        card.pointed.connect(context.show_message)
        self.next.clicked.connect(lambda: context.go("recipe"))
        context.draft.model_changed.connect(self._show_model)
        context.draft.changed.connect(self._show_costs)
        context.draft.machine_changed.connect(self._show_costs)
        self._free.timeout.connect(self._show_costs)
        choose = QAction(self.tr("Open model folder"), self)
        choose.setShortcut(QKeySequence("Ctrl+O"))
        choose.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        choose.triggered.connect(self.open_folder)
        self.addAction(choose)

    # --- opening ---

    def _open_chosen(self, path: str) -> None:
        if path:
            self.context.state.set_value("model/folder", str(Path(path).parent))
            self.open_model(path)

    def _last_folder(self) -> str:
        return self.context.state.value("model/folder", QDir.homePath())

    def _stop_opening(self) -> None:
        # The turn number identifies late results of replaced calls, which are dropped.
        self._turn += 1
        call, self._opening = self._opening, None
        self.opening.end()
        if call is not None:
            call.stop()

    def _cancel_opening(self) -> None:
        self._stop_opening()
        self._show_model()
        self.picker.focus_search()

    def _opened(self, turn: int, opened: OpenedModel) -> None:
        if turn != self._turn:
            return
        waited_here = self.opening.bar.cancel.hasFocus()
        self._opening = None
        self.opening.end()
        self.context.state.add_recent(opened.name)
        self.picker.set_recent(self.context.state.recent)
        self.cards.forget()
        self.context.draft.choose(model=opened)
        self._show_model()
        if waited_here:
            (self.next if self.next.isEnabled() else self.picker.field).setFocus(Qt.FocusReason.OtherFocusReason)

    def _failed(self, turn: int, name: str, error: BitwrightError) -> None:
        if turn != self._turn:
            return
        waited_here = self.opening.bar.cancel.hasFocus()
        self._opening = None
        self.opening.end()
        self._show_model()
        if waited_here:
            self.picker.focus_search()
        self.context.report(error, self._remedy(name, error))

    def _remedy(self, name: str, error: BitwrightError) -> Remedy | None:
        """Return the most useful next step for a model that could not be opened."""
        if isinstance(error, HubUnreachable) and "gated" in error.message:
            address = QUrl(page_of(name))
            return Remedy(self.tr("Open model page"), lambda: QDesktopServices.openUrl(address))
        if isinstance(error, ModelNotFound) and name in self.context.state.recent:
            return Remedy(self.tr("Remove from list"), lambda: self._forget(name))
        if isinstance(error, ModelNotFound) and looks_like_path(name):
            return Remedy(self.tr("Open folder\N{HORIZONTAL ELLIPSIS}"), self.open_folder)
        if error.code in ("hub", "child-died", "disk-full", "output", "error"):
            return Remedy(self.tr("Try again"), lambda: self.open_model(name))
        return None

    def _forget(self, name: str) -> None:
        self.context.state.forget_recent(name)
        self.picker.set_recent(self.context.state.recent)

    # --- display ---

    def _show_model(self) -> None:
        """Show the progress of opening, the model of the draft, or the welcome."""
        opened, overview = self.context.draft.model, self.details.overview
        if self._opening is not None:
            self._stack.setCurrentWidget(self.opening)
        else:
            self._stack.setCurrentWidget(self.welcome if opened is None else self.details)
        ready = opened is not None and not opened.tree.refusal and self._opening is None
        self.next.setEnabled(ready)
        self.next.setToolTip("" if ready else self.tr("Select a model that can be quantized first."))
        if opened is not None:
            overview.show_model(opened, *self._license(opened.name))
            overview.show_download(self.download.running, mine=self.download.name == opened.name)
            if self.isVisible():
                self.cards.fetch(opened.name)
        self._show_costs()

    def _show_costs(self) -> None:
        draft, overview = self.context.draft, self.details.overview
        if draft.model is None or not self.isVisible():
            return
        costs = draft.costs
        if costs is None:
            overview.hide_estimate()
            return
        measuring = draft.machine.throughput is None
        overview.bars.show_costs(costs, free_now(draft), download=draft.model.download_bytes, measuring=measuring)
        overview.show_basis(self._basis())

    def _basis(self) -> str:
        """Return a short description of the choices that the estimate is based on."""
        draft, choices = self.context.draft, self.context.draft.choices
        mixed = choices.bits_map.rules or choices.bits_map.layers
        bits = self.tr("mixed bits") if mixed else self.tr("{0} bits").format(choices.bits_map.default.bits)
        device = draft.machine.device(draft.device_id)
        return self.tr("recipe {recipe}, {bits}, on {device}").format(
            recipe=choices.recipe.name or self.tr("custom"),
            bits=bits,
            device=device.name if device is not None else self.tr("this machine"),
        )

    def _license(self, name: str) -> tuple[str, str]:
        """Return the license of the model, or of the search result, and its source."""
        if self.cards.name == name and self.cards.license:
            return self.cards.license, self.cards.stated_by
        return self._stated_license, self.tr("the Hub")

    def _license_found(self, name: str) -> str:
        return next((found.license for found in self.search.models if found.id == name), "")

    def _show_card(self) -> None:
        opened, view = self.context.draft.model, self.details.card
        text, error = self.cards.text, self.cards.error
        if opened is None or opened.name != self.cards.name:
            return
        if error is not None:
            view.show_message(self.tr("The model card could not be loaded. {0}").format(error))
        elif text is None:
            view.show_message(self.tr("Loading the model card\N{HORIZONTAL ELLIPSIS}"))
        elif not text:
            view.show_message(self.tr("This model has no model card."))
        else:
            view.show_card(text, f"{page_of(opened.name)}/blob/main/" if opened.origin == "hub" else "")
        self.details.overview.show_model(opened, *self._license(opened.name))

    def _convert(self) -> None:
        """Show the Convert page with this model."""
        if self.context.draft.model is not None:
            self.context.state.set_value("convert/source", self.context.draft.model.name)
            self.context.go("convert")

    # --- the download ---

    def _start_download(self) -> None:
        opened, transfer = self.context.draft.model, self.details.overview.transfer
        if opened is None or self.download.running:
            return
        transfer.begin(self.tr("Downloading {0}").format(opened.label), total=opened.download_bytes)
        self.download.start(opened.name)
        transfer.cancel.setFocus(Qt.FocusReason.OtherFocusReason)

    def _cancel_download(self) -> None:
        self.download.cancel()
        self.context.show_message(self.tr("Download cancelled. Completed parts are kept and reused."))

    def _downloaded(self, name: str, folder: str) -> None:
        opened = self.context.draft.model
        if opened is not None and opened.name == name:
            self.context.draft.choose(model=replace(opened, folder=folder, download_bytes=0))
        self.context.show_message(self.tr("{0} was downloaded.").format(name))

    def _download_failed(self, name: str, error: BitwrightError) -> None:
        opened = self.context.draft.model
        mine = opened is not None and opened.name == name
        self.context.report(error, Remedy(self.tr("Try again"), self._start_download) if mine else None)
