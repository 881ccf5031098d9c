"""Which line stands above the composer: what is going on or went wrong with the conversation, and the one button.

Decides by the state of the answering; knows nothing of how a notice looks.
"""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication

from app.pages.chat.answering import Answering
from app.pages.chat.notice import ChatNotice


def show_notice(notice: ChatNotice, answering: Answering, begin_new: Callable[[], object]) -> None:
    """Show what has to be said now, or nothing."""
    session, last, state = answering.session, answering.talk.last, answering.session.state
    if state == "loading":
        text, fraction = session.progress
        notice.say(text, _tr("Cancel"), answering.stop, fraction=fraction)
    elif answering.problem is not None:
        notice.say(str(answering.problem), _tr("Start a new conversation"), begin_new, role="warning")
    elif state not in ("answering", "measuring") and last is not None and last.role == "user":
        notice.say(_tr("Your last message has no answer yet."), _tr("Answer it"), answering.answer)
    elif last is not None and last.figures is not None and last.figures.ended_by == "context":
        text = _tr("The conversation fills all that the model can read at once.")
        notice.say(text, _tr("Start a new conversation"), begin_new, role="warning")
    else:
        notice.hide()


def _tr(text: str) -> str:
    return QCoreApplication.translate("Notices", text)
