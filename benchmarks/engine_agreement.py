"""Whether another engine says what transformers says: greedy float32 answers, token by token.

Run as: .venv/bin/python benchmarks/engine_agreement.py --engine llama.cpp [--base FOLDER] [--prompts 100]

The prompts are those that the demo is judged by. Where an answer differs, the two tokens that parted it are printed
with the difference of their logits in transformers: engines add in different orders, so logits differ in their last
digits, and a choice between tokens that are closer than that is nobody's. Ends with status 1 if an answer differs by
more.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from transformers import PreTrainedModel

from whetstone.data.load import load_splits
from whetstone.data.template import Template
from whetstone.data_section import Data, GrammarSource
from whetstone.engine.api import Engine, Request
from whetstone.errors import UserError
from whetstone.models.load import BUILTIN_BASE, load_template, load_weights, locate

__all__ = ["Agreement", "Difference", "main", "measure"]

NEAR_TIE = 1e-3
"""Of two logits; float32 sums over a small model differ by 1e-5 between engines, those with a table of GELU by 1e-3."""

Open = Callable[[Path, Template], Engine]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two answers part.

    Attributes:
        prompt: Its number.
        position: Of the first token that differs, in the answer.
        expected: What transformers chose.
        given: What the engine chose; None where its answer had ended.
        gap: By how much transformers' logit of its own choice is above that of the other.
    """

    prompt: int
    position: int
    expected: int
    given: int | None
    gap: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many of the answers are the same, and where the others part."""

    n: int
    differences: tuple[Difference, ...]

    @property
    def same(self) -> int:
        """Answers with the same tokens."""
        return self.n - len(self.differences)

    @property
    def explained(self) -> bool:
        """Whether every difference is a near tie."""
        return all(difference.gap < NEAR_TIE for difference in self.differences)


def measure(folder: Path, open_engine: Open, *, prompts: int, max_new_tokens: int) -> Agreement:
    """Answers the same prompts by transformers and by an engine.

    Args:
        folder: The model.
        open_engine: Makes the engine of it.
        prompts: How many.
        max_new_tokens: Where an answer is cut off.
    """
    template, ends = _template(folder)
    model = load_weights(folder, dtype="float32", device=torch.device("cpu"))
    asked = _prompts(template, prompts)
    engine = open_engine(folder, template)
    completions = engine.generate([Request(tuple(ids), max_new_tokens) for ids in asked])
    engine.close()
    stop_ids = sorted(template.stop_ids(ends))
    differences = []
    for number, (ids, completion) in enumerate(zip(asked, completions, strict=True)):
        expected = model.generate(
            torch.tensor([ids]), do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=stop_ids
        )[0, len(ids) :].tolist()
        given = list(completion.token_ids)
        if given != expected:
            differences.append(_difference(model, number, ids, expected, given))
    return Agreement(len(asked), tuple(differences))


def _difference(
    model: PreTrainedModel, number: int, prompt: Sequence[int], expected: Sequence[int], given: Sequence[int]
) -> Difference:
    pairs = zip(expected, given, strict=False)
    position = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *expected[:position]]])).logits[0, -1]
    if position == min(len(expected), len(given)):
        # One answer ended where the other went on, which no tie explains.
        return Difference(number, position, expected[-1], None, float("inf"))
    gap = float(logits[expected[position]] - logits[given[position]])
    return Difference(number, position, expected[position], given[position], gap)


def _template(folder: Path) -> tuple[Template, list[int]]:
    try:
        return load_template(folder, "auto")
    except UserError:
        return load_template(folder, "plain")


def _prompts(template: Template, count: int) -> list[list[int]]:
    """The demo's own test prompts."""
    source = GrammarSource(grammar="corrections", train=count, validation=1, test=count)
    examples = load_splits(Data(source=source, prompt="Correct: {source}")).test
    return template.prompt_ids_many([example.messages for example in examples[:count]])


def _open_llama_cpp(folder: Path, template: Template) -> Engine:
    from whetstone.engine.llama_cpp import llama_cpp_engine
    from whetstone.models.gguf import export_gguf

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "model.gguf"
        export_gguf(folder, file, "float32")
        return llama_cpp_engine(file, template)


def _open_mlx(folder: Path, template: Template) -> Engine:
    from whetstone.engine.mlx_engine import mlx_engine

    return mlx_engine(folder, template, dtype="float32")


ENGINES: dict[str, Open] = {"llama.cpp": _open_llama_cpp, "mlx": _open_mlx}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures one engine and prints what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, required=True)
    parser.add_argument("--base", default=BUILTIN_BASE, help="a model folder")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--max-new-tokens", type=int, default=40)
    asked = parser.parse_args(arguments)
    found = measure(
        locate(asked.base), ENGINES[asked.engine], prompts=asked.prompts, max_new_tokens=asked.max_new_tokens
    )
    print(f"n {found.n}, same {found.same}")
    for difference in found.differences:
        print(
            f"prompt {difference.prompt}, token {difference.position}: {difference.expected} by transformers, "
            f"{difference.given} by {asked.engine}; logits {difference.gap:.2e} apart"
        )
    return 0 if found.explained else 1


if __name__ == "__main__":
    sys.exit(main())
