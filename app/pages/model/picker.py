"""The sources of models: a search of the Hub, a folder, a GGUF file, the demo, and recent models.

A list under the search field shows the recent models, or the search results. Emits the choice; does not open models.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QModelIndex, QObject, Qt, Signal
from PySide6.QtGui import QAction, QKeyEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.pages.model.hub_search import SHORTEST, HubSearch, Query
from app.pages.model.result_delegate import ResultDelegate
from app.pages.model.results_table import ROW, ResultRow, SearchResults, found_row, heading, recent_row
from app.shared.models.name import names_a_model
from app.theme import Theme
from app.widgets.note import Note
from app.widgets.view_stack import ViewStack
from core.model_id import DEMO

_RECENT = 8
_RECENT_BESIDE_RESULTS = 3


class ModelPicker(QWidget):
    """The left side of the Model page.

    Signals:
        picked: name of the model to open (str).
        folder_wanted, gguf_wanted: the user wants to choose a folder or a GGUF file.
    """

    picked = Signal(str)
    folder_wanted = Signal()
    gguf_wanted = Signal()

    def __init__(self, theme: Theme, search: HubSearch, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._search = search
        self._recent: tuple[str, ...] = ()
        self._make_field()
        self._make_list()
        self._arrange()
        search.changed.connect(self._show_search)
        theme.changed.connect(self._tint)
        self._tint()
        self._show_search()

    def set_recent(self, names: Sequence[str]) -> None:
        """Set the recent models, the latest first."""
        self._recent = tuple(names)
        self._show_rows()

    def focus_search(self) -> None:
        """Set the focus to the search field."""
        self.field.setFocus(Qt.FocusReason.OtherFocusReason)
        self.field.selectAll()

    def rows(self) -> tuple[ResultRow, ...]:
        """The rows of the list."""
        return self._rows.rows

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Move from the field to the list with Down and back with Up; stop a search with Escape."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            if watched is self.field and event.key() == Qt.Key.Key_Down:
                return self._enter_list()
            if watched is self.field and event.key() == Qt.Key.Key_Escape and self.field.text():
                self._search.stop()
                self.field.clear()
                return True
            if watched is self.list and event.key() == Qt.Key.Key_Up:
                current = self.list.currentIndex()
                if not current.isValid() or current.row() <= self._rows.first_model().row():
                    self.field.setFocus(Qt.FocusReason.BacktabFocusReason)
                    return True
        return super().eventFilter(watched, event)

    # --- construction ---

    def _make_field(self) -> None:
        self.field = QLineEdit()
        self.field.setObjectName("search")
        self.field.setPlaceholderText(self.tr("Search the Hugging Face Hub"))
        self.field.setAccessibleName(self.tr("Search the Hugging Face Hub, or type the name of a model"))
        self.field.setClearButtonEnabled(True)
        self.field.setMinimumHeight(self.field.sizeHint().height() + 8)
        self._glass = QAction(self)
        self.field.addAction(self._glass, QLineEdit.ActionPosition.LeadingPosition)
        self.field.textChanged.connect(self._query_changed)
        self.field.returnPressed.connect(self._enter_pressed)
        self.field.installEventFilter(self)
        self.sort = QComboBox()
        self.sort.setObjectName("sort")
        self.sort.setAccessibleName(self.tr("Sort by"))
        self.sort.view().setAccessibleName(self.tr("Sort by"))
        for text, key in (
            (self.tr("Most downloads"), "downloads"),
            (self.tr("Most likes"), "likes"),
            (self.tr("Trending"), "trending"),
            (self.tr("Recently updated"), "updated"),
        ):
            self.sort.addItem(text, key)
        self.sort.currentIndexChanged.connect(self._query_changed)
        self.hide_quantized = QCheckBox(self.tr("Hide quantized"))
        self.hide_quantized.setObjectName("hide_quantized")
        self.hide_quantized.setToolTip(
            self.tr("Hide models that are already quantized. They cannot be quantized again.")
        )
        self.hide_quantized.setChecked(True)
        self.hide_quantized.toggled.connect(self._query_changed)
        self.folder = QPushButton(self.tr("Open &folder\N{HORIZONTAL ELLIPSIS}"))
        self.folder.setObjectName("open_folder")
        self.folder.clicked.connect(self.folder_wanted)
        self.gguf = QPushButton(self.tr("Open &GGUF file\N{HORIZONTAL ELLIPSIS}"))
        self.gguf.setObjectName("open_gguf")
        self.gguf.setToolTip(self.tr("GGUF is the file format of llama.cpp."))
        self.gguf.clicked.connect(self.gguf_wanted)
        self.demo = QPushButton(self.tr("&Demo: SmolLM2-135M-Instruct, no download"))
        self.demo.setObjectName("demo")
        self.demo.clicked.connect(lambda: self.picked.emit(DEMO))

    def _make_list(self) -> None:
        self._rows = SearchResults(self)
        self.list = QListView()
        self.list.setObjectName("results")
        self.list.setAccessibleName(self.tr("Models"))
        self.list.setModel(self._rows)
        self.list.setItemDelegate(ResultDelegate(self._theme, self.list))
        self.list.setVerticalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setResizeMode(QListView.ResizeMode.Adjust)
        self.list.setMouseTracking(True)
        self.list.clicked.connect(self._pick)
        self.list.activated.connect(self._pick)
        self.list.installEventFilter(self)
        self._hint = Note(self._theme, parent=self)
        self._hint.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._hint.setContentsMargins(0, 8, 0, 8)
        nothing = QWidget()  # a note shows itself when its text is set, also behind the list
        column = QVBoxLayout(nothing)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._hint)
        column.addStretch(1)
        self._pages = ViewStack()
        self._pages.addWidget(nothing)
        self._pages.addWidget(self.list)
        self._status = Note(self._theme, parent=self)
        self._status.setObjectName("search_status")
        self.act = QPushButton(self.tr("Stop"))
        self.act.setObjectName("search_act")
        self.act.clicked.connect(self._act)

    def _arrange(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self.field)
        self._filters = QWidget()
        filters = QHBoxLayout(self._filters)
        filters.setContentsMargins(0, 0, 0, 0)
        filters.setSpacing(8)
        filters.addWidget(self.sort, 1)
        filters.addWidget(self.hide_quantized)
        buttons = QHBoxLayout()
        buttons.setSpacing(8)
        buttons.addWidget(self.folder, 1)
        buttons.addWidget(self.gguf, 1)
        column.addLayout(buttons)
        column.addWidget(self.demo)
        column.addWidget(self._filters)
        self._status_line = QWidget()
        line = QHBoxLayout(self._status_line)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(8)
        line.addWidget(self._status, 1)
        line.addWidget(self.act)
        column.addWidget(self._status_line)
        column.addWidget(self._pages, 1)

    def _tint(self) -> None:
        self._glass.setIcon(self._theme.icon("search", "muted"))
        self.folder.setIcon(self._theme.icon("folder"))
        self.gguf.setIcon(self._theme.icon("model"))
        self.demo.setIcon(self._theme.icon("play"))

    # --- user actions ---

    def _query_changed(self) -> None:
        text = self.field.text().strip()
        looked_for = "" if self._is_name(text) else text
        self._search.search(Query(looked_for, str(self.sort.currentData()), self.hide_quantized.isChecked()))
        self._show_search()

    def _enter_pressed(self) -> None:
        text = self.field.text().strip()
        if names_a_model(text):
            self.picked.emit(text)
        elif self._search.state in ("waiting", "stopped", "failed"):
            self._search.ask()
        elif self._search.state in ("found", "offline"):
            self._enter_list()

    def _enter_list(self) -> bool:
        first = self._rows.first_model()
        if first.isValid():
            self.list.setCurrentIndex(first)
            self.list.setFocus(Qt.FocusReason.TabFocusReason)
        return True

    def _pick(self, index: QModelIndex) -> None:
        row = index.data(ROW)
        if row is not None and row.name:
            self.picked.emit(row.name)

    def _act(self) -> None:
        if self._search.state in ("waiting", "searching"):
            self._search.stop()
        else:
            self._search.ask()

    # --- display ---

    @staticmethod
    def _is_name(text: str) -> bool:
        """Return whether the text is a path or a link. `owner/name` is searched: it may be incomplete."""
        return names_a_model(text) and not (text.count("/") == 1 and not text.startswith(("/", "~", ".")))

    def _show_search(self) -> None:
        typed = self.field.text().strip()
        self._filters.setVisible(bool(typed) and not self._is_name(typed))
        state = self._search.state
        acts = {"waiting": self.tr("Stop"), "searching": self.tr("Stop")}
        again = self.tr("Try again") if state in ("offline", "failed", "stopped") else ""
        text = acts.get(state, again)
        self.act.setText(text or self.act.text())
        self.act.setVisible(bool(text))
        text = self._status_text(typed)
        self._status.set_text(text, "warning" if state in ("offline", "failed") else "muted")
        self._status_line.setVisible(bool(text))
        self._show_rows()

    def _status_text(self, typed: str) -> str:
        search = self._search
        if self._is_name(typed):
            return self.tr("Press Enter to open.")
        if typed and search.state == "idle":
            return self.tr("Enter at least {0} characters.").format(SHORTEST)
        if search.state == "failed" and search.error is not None:
            return str(search.error)
        found = len(search.models)
        texts = {
            "waiting": self.tr("Searching\N{HORIZONTAL ELLIPSIS}"),
            "searching": self.tr("Searching\N{HORIZONTAL ELLIPSIS}"),
            "stopped": self.tr("Search stopped."),
            "found": "" if found else self.tr("No matching models on the Hub."),
            "offline": (
                self.tr("The Hub cannot be reached. Showing models in the local cache.")
                if found
                else self.tr("The Hub cannot be reached, and no model in the local cache matches.")
            ),
        }
        return texts.get(search.state, "")

    def _show_rows(self) -> None:
        typed = self.field.text().strip().lower()
        found = [found_row(record) for record in self._search.models]
        names = {row.name for row in found}
        recent = [name for name in self._recent if typed in name.lower() and name not in names]
        recent = recent[: _RECENT_BESIDE_RESULTS if typed else _RECENT]
        rows: list[ResultRow] = []
        if recent:
            rows += [heading(self.tr("Recent models")), *map(recent_row, recent)]
        if found:
            offline = self._search.state == "offline"
            rows += [heading(self.tr("In the local cache") if offline else self.tr("On the Hub")), *found]
        self._rows.set_rows(rows)
        self._hint.set_text("" if typed else self.tr("Recently opened models appear here."))
        self._pages.setCurrentIndex(1 if rows else 0)
