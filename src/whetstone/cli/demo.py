"""``whet demo``: the whole line on this machine, with nothing to download."""

from pathlib import Path
from typing import Annotated

import typer

from whetstone.cli.common import FreshOption, JsonOption, RunsOption, show_summary, status
from whetstone.cli.compare import compare_run
from whetstone.cli.tune import tune_run

__all__ = ["demo"]


def demo(
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train the base model too, from random weights (minutes more).")
    ] = False,
    runs: RunsOption = Path("runs"),
    fresh: FreshOption = False,
    as_json: JsonOption = False,
) -> None:
    """Teach a tiny model to correct grammar, judge it, and write the report: minutes, on a plain CPU.

    Example: whet demo
    """
    from whetstone.experiment import load_experiment
    from whetstone.recipes import recipe_path
    from whetstone.run import Run

    experiment = load_experiment(recipe_path("demo"))
    if from_scratch:
        base = load_experiment(recipe_path("demo-base"))
        base_run = Run(runs / base.name)
        status.print("base: a new tokenizer and random weights, trained on clean writing, copying and formats")
        with base_run.lock():
            tune_run(base_run, base, fresh=fresh, resume=not fresh)
        model = experiment.model.model_copy(update={"base": str(base_run.weights("model").resolve())})
        experiment = experiment.model_copy(update={"name": "demo-from-scratch", "model": model})
    run = Run(runs / experiment.name)
    with run.lock():
        status.print(f"tune: LoRA on {experiment.model.base}")
        tune_run(run, experiment, fresh=fresh, resume=not fresh)
        status.print("judge: copy-input, base, base again and tuned answer the held-out examples")
        summary = compare_run(run, experiment)
    show_summary(summary, run, as_json=as_json)
