"""``whet data from-feedback``: a training set of what people thought of answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from whetstone.cli.common import JsonOption, print_json, status
from whetstone.errors import UserError

if TYPE_CHECKING:
    from whetstone.data.from_feedback import FeedbackSet, Included

__all__ = ["from_feedback"]


def from_feedback(
    feedback: Annotated[Path, typer.Argument(help="The file that the server writes (serve.feedback).")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .jsonl.")],
    include: Annotated[
        str | None, typer.Option("--include", help="Which ratings become examples; else good,correction.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only answers of the model of this name.")] = None,
    preference: Annotated[
        bool, typer.Option("--preference", help="Write pairs of a right answer and a bad one, for preference training.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a training set of answers that people rated good, and of their corrections.

    Only answers of servers that kept prompts (serve.store_prompts) can be used.

    Example: whet data from-feedback feedback.db --out train.jsonl
    """
    from whetstone.data.from_feedback import examples_of_feedback, pairs_of_feedback
    from whetstone.files import write_jsonl

    if out.suffix != ".jsonl":
        raise UserError(
            f"--out: {out} does not end in .jsonl, which is all this writes; 'whet data convert' makes more"
        )
    if out.exists() and not force:
        raise UserError(f"{out}: exists already; give another name, or --force to replace it")
    if preference and include is not None:
        raise UserError("--include: chooses among examples, and --preference makes pairs of all ratings; leave one out")
    made = (
        pairs_of_feedback(feedback, model) if preference else examples_of_feedback(feedback, _ratings(include), model)
    )
    if not made.rows:
        raise UserError(f"{feedback}: gives no rows; {_reasons(made) or 'no answer in it was rated'}")
    write_jsonl(out, made.rows)
    if as_json:
        print_json(
            {
                "written": str(out),
                "format": "preference" if preference else "prompt-completion",
                "rows": len(made.rows),
                "groups": len({row["group"] for row in made.rows}),
                "rated": made.rated,
                "left_out": made.left_out,
            }
        )
        return
    said = f"{out}: {len(made.rows):,} rows of {made.rated:,} rated answers"
    status.print(f"{said}; {_reasons(made)}" if made.left_out else said, markup=False, soft_wrap=True)


def _ratings(include: str | None) -> "list[Included]":
    from whetstone.data.from_feedback import Included

    known: tuple[Included, ...] = get_args(Included)
    asked = [part.strip() for part in include.split(",")] if include is not None else list(known)
    if unknown := [part for part in asked if part not in known]:
        raise UserError(f"--include: '{unknown[0]}' makes no example; give {' or '.join(known)}, or both with a comma")
    return [rating for rating in known if rating in asked]


def _reasons(made: "FeedbackSet") -> str:
    reasons = [f"{count:,} {reason}" for reason, count in sorted(made.left_out.items())]
    return f"left out: {'; '.join(reasons)}" if reasons else ""
