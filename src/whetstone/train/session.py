"""Where a training writes, what it uses, and who is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerCallback

from whetstone.train.recorder import Observer
from whetstone.train.settings import Settings

__all__ = ["Session"]


@dataclass(frozen=True, slots=True)
class Session:
    """One call of a trainer.

    Attributes:
        folder: The run's: ``metrics.jsonl`` and ``checkpoints/`` are written there.
        settings: What the device can do.
        observer: Told of every logged step.
        say: Told, in one line each, what is unusual.
        callbacks: More of the Trainer's own kind, such as sample answers.
        keeps_checkpoints: Whether there are any; a probe needs none.
        resume: Go on from the newest checkpoint.
    """

    folder: Path
    settings: Settings
    observer: Observer
    say: Callable[[str], None]
    callbacks: Sequence[TrainerCallback] = ()
    keeps_checkpoints: bool = True
    resume: bool = False

    @property
    def metrics_path(self) -> Path:
        """One row for each logged step."""
        return self.folder / "metrics.jsonl"

    @property
    def watch_path(self) -> Path:
        """One row for each sample answer."""
        return self.folder / "watch.jsonl"
