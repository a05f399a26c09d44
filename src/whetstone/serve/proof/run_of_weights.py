"""Which run was judged with given weights: they are known by their hashes, wherever they lie."""

from collections.abc import Iterator
from pathlib import Path

from whetstone.errors import UserError
from whetstone.models.ref import Gguf
from whetstone.run import Judgement, Run, list_runs
from whetstone.serve.proof.arm import Arm

__all__ = ["run_of_file", "run_of_weights"]


def run_of_weights(sha256: str, runs: Path) -> Run | None:
    """The run whose judged candidate has this hash; the one that was judged last, where there are several."""
    return next((run for run, judgement in _judged(runs) if judgement.candidate.sha256 == sha256), None)


def run_of_file(model: Gguf, runs: Path) -> tuple[Run, Arm, str] | None:
    """The run that was judged last with what a GGUF file says it was made of; which arm that is; and its hash.

    What the file says is taken for a hint: whether it answers as that arm did is found out by asking.

    Raises:
        UserError: llama.cpp cannot read the file, or is not installed.
    """
    from whetstone.engine.gguf_file import gguf_source

    made_of = gguf_source(Path(model.file).expanduser())
    for run, judgement in _judged(runs):
        base, candidate = judgement.base_sha256, judgement.candidate.sha256
        if made_of.sha256 == candidate or (made_of.base_sha256, made_of.adapter_sha256) == (base, candidate):
            return run, "tuned", candidate
        if made_of.sha256 == base:
            return run, "base", base
    return None


def _judged(runs: Path) -> list[tuple[Run, Judgement]]:
    """Those that were judged last come first."""
    return sorted(_all_judged(runs), key=lambda one: (one[1].frozen_at, one[0].name), reverse=True)


def _all_judged(runs: Path) -> Iterator[tuple[Run, Judgement]]:
    for run in list_runs(runs):
        try:
            judgement = run.manifest().judgement
        except UserError:  # of another version, or edited: no proof of anything
            continue
        if judgement is not None:
            yield run, judgement
