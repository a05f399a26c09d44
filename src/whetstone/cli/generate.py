"""``whet generate``: answer a file of prompts into a file of answers."""

import hashlib
import json
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from whetstone.cli.common import FreshOption, JsonOption, RunsOption, print_json, status, working
from whetstone.cli.provenance import RANDOM_WEIGHTS, provenance_line
from whetstone.cli.sampling_options import (
    DeviceOption,
    MinPOption,
    NewTokensOption,
    RefArgument,
    RepetitionPenaltyOption,
    SeedOption,
    SystemOption,
    TestModeOption,
    TopKOption,
    TopPOption,
)
from whetstone.errors import UserError
from whetstone.report.format import count, duration, rate

if TYPE_CHECKING:
    from whetstone.data.prompts import Prompts
    from whetstone.engine.api import Completion, Constraint
    from whetstone.engine.bulk import Settings
    from whetstone.engine.open import Opened

__all__ = ["generate"]


def generate(
    ref: RefArgument,
    prompts: Annotated[Path, typer.Argument(metavar="PROMPTS", help="A file with a prompt, or messages, a line.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where answers go; PROMPTS.answers.jsonl where it is not given.")
    ] = None,
    system: SystemOption = None,
    max_new_tokens: NewTokensOption = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token.")] = 0.0,
    top_p: TopPOption = 1.0,
    top_k: TopKOption = None,
    min_p: MinPOption = 0.0,
    repetition_penalty: RepetitionPenaltyOption = 1.0,
    n: Annotated[int, typer.Option("--n", min=1, help="So many answers to each prompt.")] = 1,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="A string that ends an answer; repeatable.")] = None,
    json_schema: Annotated[
        Path | None, typer.Option("--json-schema", help="A JSON schema that every answer obeys.")
    ] = None,
    regex: Annotated[str | None, typer.Option("--regex", help="A pattern that every whole answer matches.")] = None,
    logprobs: Annotated[
        int | None, typer.Option("--logprobs", min=0, help="Tell logprobs, and so many likeliest tokens beside.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="So many answers are under way at once.")] = 256,
    seed: SeedOption = 0,
    fresh: FreshOption = False,
    runs: RunsOption = Path("runs"),
    device: DeviceOption = "auto",
    test_mode: TestModeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Answer a file of prompts; the same command goes on where an interrupted one stopped.

    A row holds "prompt" or "messages", and may hold "id", "system" and "max_new_tokens". All rows are checked before
    the first is answered. Exit code 0: every row was answered; 1: some failed, and are tried again next time; 2: bad
    input.

    Example: whet generate run:demo prompts.jsonl --out answers.jsonl
    """
    from whetstone.data.prompts import read_prompts
    from whetstone.engine.answer_file import writing
    from whetstone.engine.api import Sampling
    from whetstone.engine.bulk import Settings

    settings = Settings(
        max_new_tokens=max_new_tokens,
        sampling=Sampling(temperature, top_p, top_k, min_p, repetition_penalty),
        samples=n,
        seed=seed,
        stop=tuple(stop or ()),
        logprobs=logprobs,
        constraint=_constraint(json_schema, regex),
        system=system,
    )
    target = out or _beside(prompts)
    _check(settings, prompts, target)
    asked = read_prompts(prompts, system)
    if asked.unused:
        status.print(Text(f"{prompts}: fields that are not used: {', '.join(asked.unused)}"), soft_wrap=True)
    with writing(target, fresh=fresh):
        with working() as say:
            say(f"open {ref}")
            opened = _open(ref, runs, device, test_mode=test_mode)
        with closing(opened):
            summary = _answer(opened, asked, settings, prompts, target, batch)
    if as_json:
        print_json(summary)
    else:
        typer.echo(_said(summary))
    if summary["errors"]:
        raise typer.Exit(1)


def _open(ref: str, runs: Path, device: str, *, test_mode: bool) -> "Opened":
    from whetstone.engine.open import open_engine

    opened = open_engine(ref, runs=runs, device=device, test_mode=test_mode)
    status.print(Text(provenance_line(opened.provenance), style="dim"), soft_wrap=True)
    if opened.provenance.random_weights:
        status.print(Text(RANDOM_WEIGHTS, style="bold red"), soft_wrap=True)
    return opened


def _answer(
    opened: "Opened", asked: "Prompts", settings: "Settings", prompts: Path, target: Path, batch: int
) -> dict[str, Any]:
    """Answers what is missing, and says what came of it."""
    from whetstone.engine.answer_file import AnswerFile
    from whetstone.engine.bulk import answer_all, plan

    jobs = plan(asked.rows, opened, settings)
    meta = {
        "provenance": opened.provenance.recorded(),
        "settings": settings.as_json(),
        "prompts": {"file": prompts.name, "sha256": hashlib.sha256(prompts.read_bytes()).hexdigest()},
    }
    with closing(AnswerFile(target, meta)) as file:
        before = len(file.done)
        began_s = time.monotonic()
        progress = _Progress(before, len(jobs))
        with progress.bar:
            answer_all(jobs, opened, file, batch, progress.answer)
        seconds = time.monotonic() - began_s
        rows = file.put_in_order({job.key: place for place, job in enumerate(jobs)})
    errors = sum(row["finish_reason"] not in ("stop", "length") for row in rows)
    return {
        "out": str(target),
        "rows": len(rows),
        "answered": len(rows) - errors,
        "errors": errors,
        "made_now": len(jobs) - before,
        "prompt_tokens": sum(row["prompt_tokens"] for row in rows),
        "new_tokens": sum(row["new_tokens"] for row in rows),
        "seconds": round(seconds, 3),
        "tokens_per_s": round(progress.new_tokens / seconds, 1) if progress.new_tokens else None,
        "random_weights": opened.provenance.random_weights,
        "provenance": asdict(opened.provenance),
    }


class _Progress:
    """A bar over all answers, with the pace of this call."""

    def __init__(self, done: int, total: int) -> None:
        self.new_tokens = 0
        self._began_s = time.monotonic()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        shown = status.is_terminal
        self.bar = Progress(*columns, TimeRemainingColumn(), console=status, transient=True, disable=not shown)
        self._task = self.bar.add_task("answer", total=total, completed=done)

    def answer(self, completion: "Completion") -> None:
        """Counts an answer that came."""
        self.new_tokens += completion.usage.new_tokens
        pace = self.new_tokens / (time.monotonic() - self._began_s)
        self.bar.update(self._task, advance=1, description=f"answer, {rate(pace)} tokens/s")


def _said(summary: dict[str, Any]) -> str:
    parts = [f"{count(summary['answered'])} of {count(summary['rows'])} answers in {summary['out']}"]
    if summary["tokens_per_s"] is None:
        parts.append("nothing was left to do")
    else:
        pace = f"{rate(summary['tokens_per_s'])} tokens/s"
        parts.append(f"{count(summary['made_now'])} made now, {duration(summary['seconds'])}, {pace}")
    if summary["errors"]:
        parts.append(f"{count(summary['errors'])} failed; the same command tries them again")
    if summary["random_weights"]:
        parts.append(RANDOM_WEIGHTS)
    return "; ".join(parts)


def _constraint(json_schema: Path | None, regex: str | None) -> "Constraint | None":
    from whetstone.engine.api import Constraint
    from whetstone.files import read_json

    if json_schema is not None and regex is not None:
        raise UserError("--json-schema and --regex both say what an answer must be: give one of them")
    if json_schema is not None:
        return Constraint("json_schema", json.dumps(read_json(json_schema)))
    return None if regex is None else Constraint("regex", regex)


def _beside(prompts: Path) -> Path:
    from whetstone.source_name import COMPRESSIONS

    name = prompts.with_suffix("") if prompts.suffix.lower() in COMPRESSIONS else prompts
    return name.with_name(f"{name.stem}.answers.jsonl")


def _check(settings: "Settings", prompts: Path, target: Path) -> None:
    if target.resolve() == prompts.resolve():
        raise UserError(f"--out: {target} is the file of prompts; give another file")
    if settings.samples > 1 and settings.sampling.temperature == 0:
        raise UserError(
            f"--n {settings.samples} with temperature 0 gives the same answer {settings.samples} times; "
            "set --temperature above 0"
        )
