"""A comparison of two models: sends each message to both, at once or one after the other, and keeps the turns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal

from app.pages.chat.comparison import turns
from app.pages.chat.comparison.side import ComparisonSide
from app.pages.chat.comparison.token_diff import TokenDiff, compare, pieces_of
from app.pages.chat.comparison.turns import AskOrder, AskPlan, Reply, Turn
from app.shared.calls.background import Background
from core.inference.generation.reply import Statistics
from core.inference.generation.settings import Sampling

if TYPE_CHECKING:
    from app.shared.calls.calls import Calls
    from core.errors import BitwrightError
    from core.inference.machine import Machine

LEFT, RIGHT = 0, 1


class ComparisonSession(QObject):
    """Two sides and their turns.

    Signals:
        changed: the state changed.
        asked: a turn began.
        grew(int): the last answer of this side received text, or its end.
        compared(object): the differences of this `Turn` are known.
        finished: the last turn is complete.
        cleared: the list of turns was replaced.
    """

    changed = Signal()
    asked = Signal()
    grew = Signal(int)
    compared = Signal(object)
    finished = Signal()
    cleared = Signal()

    def __init__(self, calls: Calls, machine: Callable[[], Machine], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.sides = (ComparisonSide(calls, "A", self), ComparisonSide(calls, "B", self))
        self.turns: list[Turn] = []
        self.order: AskOrder = "auto"
        self._machine = machine
        self._system = ""
        self._waiting: list[int] = []
        """Sides that are asked later, in this order."""
        self._wanted: set[int] = set()
        """Sides that are asked as soon as they are loaded."""
        self._aside: list[Turn] = []
        self._open = False
        self._matching = Background(self)
        self._matching.done.connect(self._compared)
        for place, side in enumerate(self.sides):
            side.session.changed.connect(partial(self._on_state, place))
            side.session.piece.connect(partial(self._on_piece, place))
            side.session.thought.connect(partial(self._on_thought, place))
            side.session.answered.connect(partial(self._on_answered, place))
            side.session.failed.connect(partial(self._on_failed, place))
            side.changed.connect(partial(self._on_side, place))

    # --- state ---

    @property
    def busy(self) -> bool:
        """Return whether an answer is pending."""
        return bool(self.turns) and not all(reply.done for reply in self.turns[-1].replies)

    @property
    def stopping(self) -> bool:
        """Return whether a stop was requested and is pending."""
        return any(side.session.stopping for side in self.sides)

    @property
    def ready(self) -> bool:
        """Return whether both sides have a model."""
        return all(side.name for side in self.sides)

    @property
    def cleared_turns(self) -> int:
        """The number of turns that `restore_turns` would restore."""
        return len(self._aside)

    def plan(self) -> AskPlan:
        """Return the order in which both would be asked now."""
        machine = self._machine()
        needs = (self.sides[LEFT].need(machine), self.sides[RIGHT].need(machine))
        free = turns.free_for(machine, [need.device for need in needs])
        return turns.plan(needs, free, self.order)

    # --- user actions ---

    def ask(self, question: str, sampling: Sampling, system: str = "", pictures: tuple[str, ...] = ()) -> None:
        """Send a message with pictures to both models and load them if needed."""
        if self.busy or not self.ready:
            return
        self._system, self._aside, self._open = system, [], True
        replies = tuple(Reply(side.label, side.name) for side in self.sides)
        self.turns.append(Turn(question, sampling, (replies[LEFT], replies[RIGHT]), pictures=pictures))
        self._waiting, self._wanted = [LEFT, RIGHT], set()
        if not self.sides[LEFT].loaded and self.sides[RIGHT].loaded:
            self._waiting.reverse()  # the loaded model first, which saves one load
        for side in self.sides:
            if side.measured >= 0:
                side.session.stop()
        self.asked.emit()
        self._advance()

    def ask_again(self, sampling: Sampling, system: str = "") -> None:
        """Send the last message again and replace its answers."""
        if self.turns and not self.busy and self.ready:
            turn = self.turns.pop()
            self.cleared.emit()
            self.ask(turn.question, sampling, system, turn.pictures)

    def stop(self) -> None:
        """Stop both answers; if called again, end the children that do not respond."""
        if not self.busy:
            return
        for place in [*self._waiting, *self._wanted]:
            self._give_up(place, self.tr("Stopped before this model was asked."))
        self._waiting = []
        loading = [side for side in self.sides if side.session.state == "loading"]
        self._wanted = set()
        for side in loading:
            side.session.close()
        for place, side in enumerate(self.sides):
            side.session.stop()
            reply = self.turns[-1].replies[place]
            if (
                side.session.state == "idle" and not reply.done
            ):  # stopped twice: the child was killed and sends no final event
                self._end(place, Statistics(ended_by="stopped"))
        self._settle()

    def clear(self) -> None:
        """Remove all turns; `restore_turns` undoes it until the next message."""
        if self.turns and not self.busy:
            self._aside, self.turns = self.turns, []
            self._matching.forget()
            self.cleared.emit()
            self.changed.emit()

    def restore_turns(self) -> None:
        """Restore the cleared turns."""
        if self._aside and not self.turns:
            self.turns, self._aside = self._aside, []
            self.cleared.emit()
            self.changed.emit()

    def unload(self) -> None:
        """Unload both models; their answers stay."""
        self.stop()
        for side in self.sides:
            side.session.close()
        if self.busy:
            for place in (LEFT, RIGHT):
                self._give_up(place, self.tr("The model was unloaded."))
            self._settle()

    # --- asking one after the other ---

    def _advance(self) -> None:
        """Start the sides that can be asked now."""
        plan = self.plan()
        while self._waiting and (plan.at_once or not self._under_way()):
            place = self._waiting.pop(0)
            if plan.swap and not plan.at_once and not self.sides[place].loaded:
                self.sides[1 - place].session.close()
            self._begin(place)
        self.changed.emit()

    def _under_way(self) -> bool:
        return bool(self._wanted) or any(side.session.state in ("loading", "answering") for side in self.sides)

    def _begin(self, place: int) -> None:
        side = self.sides[place]
        state = side.session.state
        if state == "ready":
            self._generate(place)
            return
        self._wanted.add(place)
        if state == "idle":
            side.load()

    def _generate(self, place: int) -> None:
        self._wanted.discard(place)
        turn, side, other = self.turns[-1], self.sides[place], self.sides[1 - place]
        reply = turn.replies[place]
        reply.label = side.session.opened.label or side.label
        if turn.pictures and side.blind:
            self._give_up(place, side.blind)
            self._go_on()
            return
        messages = turns.messages_of(self.turns, place, self._system, pictures=not side.blind)
        side.session.generate(messages, turn.sampling)
        if other.session.state == "answering" and other.session.opened.device == side.session.opened.device:
            reply.shared = turn.replies[1 - place].shared = True
        self.grew.emit(place)

    def _on_state(self, place: int) -> None:
        if place in self._wanted and self.sides[place].session.state == "ready":
            self._generate(place)

    def _on_side(self, place: int) -> None:
        """Add a perplexity that was measured later to the earlier answers of the model."""
        side = self.sides[place]
        for turn in self.turns if side.perplexity else ():
            reply = turn.replies[place]
            if reply.done and reply.model == side.name:
                reply.perplexity, reply.perplexity_words = side.perplexity, side.perplexity_words
        self.changed.emit()

    def _on_piece(self, place: int, text: str) -> None:
        if self.turns:
            self.turns[-1].replies[place].text += text
            self.grew.emit(place)

    def _on_thought(self, place: int, text: str) -> None:
        if self.turns:
            self.turns[-1].replies[place].thinking += text
            self.grew.emit(place)

    def _on_answered(self, place: int, figures: Statistics) -> None:
        if self.busy:
            self._end(place, figures)
            self._go_on()

    def _on_failed(self, place: int, error: BitwrightError, _loading: bool) -> None:
        self._wanted.discard(place)
        if self.busy:
            reply = self.turns[-1].replies[place]
            if reply.text:
                self._end(place, Statistics(ended_by="failed"))
            self._give_up(place, str(error))
            self.sides[place].clear_error()  # it is shown in place of the answer
            self._go_on()

    def _end(self, place: int, figures: Statistics) -> None:
        side, reply = self.sides[place], self.turns[-1].replies[place]
        if reply.done:
            return
        reply.figures = figures
        reply.pieces = side.session.pieces
        reply.memory = figures.memory_bytes or side.session.opened.memory_bytes
        reply.perplexity, reply.perplexity_words = side.perplexity, side.perplexity_words
        self.grew.emit(place)

    def _give_up(self, place: int, problem: str) -> None:
        reply = self.turns[-1].replies[place]
        if not reply.problem and (reply.figures is None or reply.figures.ended_by == "failed"):
            reply.problem = problem
            self.grew.emit(place)

    def _go_on(self) -> None:
        self._advance()
        self._settle()

    def _settle(self) -> None:
        """Compare the answers once both are complete."""
        self.changed.emit()
        if not self.busy and self.turns and self._open:
            self._open = False
            self.finished.emit()
            first, second = self.turns[-1].replies
            if first.text.strip() and second.text.strip():
                self._matching.ask(partial(_compared, self.turns[-1]))

    def _compared(self, found: tuple[Turn, TokenDiff]) -> None:
        turn, comparison = found
        turn.comparison = comparison
        self.compared.emit(turn)


def _compared(turn: Turn) -> tuple[Turn, TokenDiff]:
    first, second = turn.replies
    return turn, compare(pieces_of(first.text, first.pieces), pieces_of(second.text, second.pieces))
