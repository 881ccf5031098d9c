"""The models that the chat page offers: what this machine quantized, then originals, then folders that were opened.

Reads the job folders; knows no Qt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.jobs.store import JobInfo

Kind = Literal["run", "original", "folder"]


@dataclass(frozen=True)
class ChatChoice:
    """A model to talk to.

    Attributes:
        name: what `chat_open` takes; label: short name for people; detail: one line about it.
        kind: where it comes from.
    """

    name: str
    label: str
    detail: str
    kind: Kind


def from_jobs(jobs: Iterable[JobInfo]) -> list[ChatChoice]:
    """The outputs of finished jobs that are still there, the newest job first; a folder is named once."""
    found: dict[str, ChatChoice] = {}
    for job in jobs:
        if job.state != "done" or job.spec is None:
            continue
        for name in job.spec.formats:
            folder = job.spec.output_of(name)
            if str(folder) in found or not (folder / "config.json").is_file():
                continue
            several = len(job.spec.formats) > 1
            label = f"{folder.parent.name} ({name})" if several else folder.name
            when = job.created.astimezone().strftime("%d %b, %H:%M")
            detail = f"{job.spec.bits_map.default.label()}, made {when} from {short_name(job.spec.model)}"
            found[str(folder)] = ChatChoice(str(folder), label, detail, "run")
    return list(found.values())


def original(name: str, label: str, download_bytes: int = 0) -> ChatChoice:
    """The unquantized model `name`."""
    from core.wording import human

    detail = f"the original; {human(download_bytes)} will be downloaded first" if download_bytes else "the original"
    return ChatChoice(name, label or short_name(name), detail, "original")


def folder(path: str) -> ChatChoice:
    """A model folder or a GGUF file that the user opened."""
    return ChatChoice(path, short_name(path), path, "folder")


def short_name(name: str) -> str:
    """The last part of a path or of a Hub id."""
    return Path(name).name or name


def merged(*groups: Iterable[ChatChoice]) -> list[ChatChoice]:
    """All choices in order, each model once."""
    found: dict[str, ChatChoice] = {}
    for group in groups:
        for choice in group:
            found.setdefault(choice.name, choice)
    return list(found.values())
