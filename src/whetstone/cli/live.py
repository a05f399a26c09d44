"""A training as it is seen on a terminal: how far, how well, how fast, how warm, and what the model says by now."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from whetstone.report.format import byte_size, count, decimal, duration, one_line, rate
from whetstone.report.sparkline import sparkline

if TYPE_CHECKING:
    from whetstone.train.recorder import StepMetrics
    from whetstone.train.sample_answers import SampleAnswer

__all__ = ["TrainingView", "live_training"]

_PAIR_COLUMNS = 40
"""Columns of a label with its value; as many pairs stand side by side as fit."""
_PACE_ROWS = 10
_PLAIN_LINES = 10


@contextmanager
def live_training(console: Console) -> "Iterator[TrainingView]":
    """Shows a training for as long as the block lasts.

    A terminal gets a view that is drawn anew four times a second and leaves nothing behind; anything else gets one
    plain line each tenth of the run.

    Args:
        console: Where; what is printed on it meanwhile appears above the view.

    Yields:
        The view, to be told of rows and answers.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        yield TrainingView(plain=console)
        return
    view = TrainingView()
    with Live(view, console=console, transient=True):
        yield view


class TrainingView:
    """What is known of a training, in a shape that rich can draw at any width."""

    def __init__(self, plain: Console | None = None) -> None:
        """Knows nothing yet.

        Args:
            plain: Gets a line each tenth of the run, where nothing can be drawn.
        """
        self._plain = plain
        self._rows: list[StepMetrics] = []
        self._answers: list[SampleAnswer] = []
        self._told_at_s = time.monotonic()

    def metrics(self, metrics: "StepMetrics") -> None:
        """Takes a row of the training; an observer."""
        tenth = _tenth(self._rows[-1]) if self._rows else 0
        self._rows.append(metrics)
        self._told_at_s = time.monotonic()
        if self._plain and _tenth(metrics) > tenth:
            self._plain.print(self._line(), markup=False, highlight=False, soft_wrap=True)

    def sample(self, answer: "SampleAnswer") -> None:
        """Takes an answer; those of earlier steps make room for it."""
        self._answers = [*(known for known in self._answers if known.step == answer.step), answer]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self._rows:
            yield _bar("tune", None, "starting")
            return
        last = self._rows[-1]
        yield _bar(f"step {count(last.step)}/{count(last.steps)}", last, f"{self._left()} left")
        yield _table(self._values(last), max(1, options.max_width // _PAIR_COLUMNS))
        losses = [row.loss for row in self._rows]
        before, after = f"loss {losses[0]:.3f} ", f" {losses[-1]:.3f}"
        yield Text(before + sparkline(losses, options.max_width - len(before) - len(after)) + after, no_wrap=True)
        yield from _said(self._answers, options.max_width)

    def _line(self) -> str:
        last = self._rows[-1]
        measured = self._validation()
        parts = (
            f"step {count(last.step)}/{count(last.steps)}",
            f"loss {decimal(last.loss)}",
            f"validation loss {measured}" if measured else "",
            f"{rate(last.tokens_per_s)} tokens/s",
            f"{self._left()} left",
        )
        return "  ".join(part for part in parts if part)

    def _left(self) -> str:
        """The time to the end at the pace of the last rows, less the time since the last of them."""
        last = self._rows[-1]
        early = self._rows[-_PACE_ROWS:][0]
        if early is last:
            pace_s = last.elapsed_s / last.step
        else:
            pace_s = (last.elapsed_s - early.elapsed_s) / (last.step - early.step)
        return duration(max(0.0, pace_s * (last.steps - last.step) - (time.monotonic() - self._told_at_s)))

    def _validation(self) -> str:
        measured = [row for row in self._rows if row.validation_loss is not None]
        if not measured or measured[-1].validation_loss is None:
            return ""
        return f"{decimal(measured[-1].validation_loss)} (step {count(measured[-1].step)})"

    def _values(self, last: "StepMetrics") -> dict[str, str]:
        """What the table says, by label; what is not known is left out."""
        by_origin = last.loss_tokens_by_origin
        computed = last.computed_tokens_per_s
        values = {
            "loss": decimal(last.loss),
            "validation loss": self._validation(),
            "learning rate": f"{last.learning_rate:.2e}",
            "gradient norm": f"{last.gradient_norm:.3g}",
            "tokens/s": rate(last.tokens_per_s),
            "computed/s": "" if computed is None else rate(computed),
            **{f"{origin} tokens": count(tokens) for origin, tokens in by_origin.items()},
            "peak memory": byte_size(last.memory_bytes),
            "process memory": _shown(last.process_memory_bytes, byte_size),
            "CPU": _joined(
                _shown(last.cpu_percent, "{:.0f}%".format),
                _shown(last.system_cpu_percent, "machine {:.0f}%".format),
            ),
            "GPU": _joined(
                _shown(last.gpu_percent, "{:.0f}%".format),
                _shown(last.gpu_memory_bytes, byte_size),
            ),
            "temperature": _joined(
                _shown(last.cpu_temperature_c, "CPU {:.0f} °C".format),
                _shown(last.gpu_temperature_c, "GPU {:.0f} °C".format),
            ),
            "GPU power": _shown(last.gpu_power_w, "{:.0f} W".format),
        }
        return {label: value for label, value in values.items() if value}


def _tenth(metrics: "StepMetrics") -> int:
    return metrics.step * _PLAIN_LINES // metrics.steps


def _bar(before: str, metrics: "StepMetrics | None", after: str) -> Table:
    bar = ProgressBar(metrics.steps if metrics else None, metrics.step if metrics else 0)
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_row(before, bar, after)
    return line


def _table(values: dict[str, str], pairs: int) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(pairs):
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
    cells = [cell for label, value in values.items() for cell in (label, value)]
    for start in range(0, len(cells), 2 * pairs):
        table.add_row(*cells[start : start + 2 * pairs])
    return table


def _said(answers: "Sequence[SampleAnswer]", width: int) -> Iterator[Text]:
    """Three lines an answer; of a prompt its end, where most prompts differ."""
    for answer in answers:
        # Room for the label and the ellipsis, "prompt    …".
        prompt = one_line(answer.prompt)
        shown = prompt if len(prompt) <= width - 10 else f"…{prompt[-(width - 11) :]}"
        for label, text in (("prompt", shown), ("answer", answer.answer), ("right", answer.reference)):
            style = "" if label == "answer" else "dim"
            yield Text(f"{label:<10}{one_line(text)}", style=style, no_wrap=True, overflow="ellipsis")


def _shown(value: float | None, write: Callable[[float], str]) -> str:
    return "" if value is None else write(value)


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)
