"""Collecting samples: every arm, every example, once, whatever interrupts it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from whetstone.data.example import Example, Message
from whetstone.data.template import Template
from whetstone.engine.api import Completion, Request, Timing, Usage
from whetstone.errors import UserError
from whetstone.evaluate.collect import Generator, collect, copy_input, render_prompts, repeated
from whetstone.evaluate.evidence import load_evidence
from whetstone.evaluate.metrics.catalogue import DEFAULT_METRICS, metric
from whetstone.evaluate.sample import ARMS, BASE, TUNED
from whetstone.files import write_atomic
from whetstone.judge_section import Generation
from whetstone.models.scratch import train_tokenizer

METRICS = [metric(name) for name in DEFAULT_METRICS]
GENERATION = Generation(max_new_tokens=8, batch_size=4)
EXAMPLES = [Example(f"e{n}", (Message("user", f"word {n}"),), (f"word {n}",), f"word {n}", f"g{n}") for n in range(10)]


class Killed(BaseException):
    """Stands for kill -9."""


class Echo:
    """Answers with the prompt's first tokens; dies after some batches when told to."""

    def __init__(self, dies_after: int = 1000) -> None:
        self.batches: list[int] = []
        self.forgotten = 0
        self._left = dies_after

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        if requests[0].max_new_tokens == GENERATION.max_new_tokens:
            if self._left == 0:
                raise Killed
            self._left -= 1
            self.batches.append(len(requests))
        timing, usage = Timing(0.0, (0.1, 0.2, 0.3), 0.3), Usage(5, 3)
        return [Completion(request.token_ids[:3], "said", "stop", timing, usage) for request in requests]

    def forget(self) -> None:
        self.forgotten += 1


@pytest.fixture(scope="module")
def template() -> Template:
    return Template(train_tokenizer([f"word {n}" for n in range(10)], 280))


def generator(arm: str, engine: Echo, judgement: str = "j") -> Generator:
    return Generator(arm, engine, None, judgement, torch.device("cpu"))


def run(folder: Path, template: Template, *engines: Echo) -> list[tuple[int, int]]:
    prompts = render_prompts(EXAMPLES, template)
    write_atomic(folder / "examples.jsonl", "".join(json.dumps(e.as_row()) + "\n" for e in EXAMPLES))
    copy_input(prompts, "j", folder)
    seen: list[tuple[int, int]] = []
    arms = [generator(arm, engine) for arm, engine in zip((BASE, TUNED), engines, strict=True)]
    collect(prompts, arms, template, GENERATION, folder, lambda done, total: seen.append((done, total)))
    return seen


def rows(folder: Path, arm: str) -> list[str]:
    return [json.loads(line)["example"] for line in (folder / f"{arm}.jsonl").read_text().splitlines()]


def test_every_arm_answers_every_example_in_order(tmp_path: Path, template: Template) -> None:
    seen = run(tmp_path, template, Echo(), Echo())
    assert rows(tmp_path, BASE) == rows(tmp_path, TUNED) == [example.id for example in EXAMPLES]
    assert seen == [(0, 20), (4, 20), (8, 20), (12, 20), (16, 20), (18, 20), (20, 20)]
    evidence = load_evidence(tmp_path, ARMS, METRICS)
    assert set(evidence.arms) == {"copy-input", "base", "tuned"}
    copied = [evidence.answers("copy-input", index)[0].text for index in range(evidence.count)]
    assert copied == [example.source for example in EXAMPLES]


@pytest.mark.parametrize("batches", [0, 1, 2])
@pytest.mark.parametrize("torn", [0, 5, 200])
def test_an_interrupted_collection_goes_on_with_the_next_batch(
    tmp_path: Path, template: Template, batches: int, torn: int
) -> None:
    whole = tmp_path / "whole"
    run(whole, template, Echo(), Echo())
    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        run(folder, template, Echo(), Echo(dies_after=batches))
    base = folder / "base.jsonl"
    # The arms take turns: in the first and third batch the base comes first, in the second the tuned arm.
    answered = {0: 1, 1: 1, 2: 3}[batches]
    assert len(rows(folder, BASE)) == min(4 * answered, 10)
    base.write_bytes(base.read_bytes()[: -torn or None])
    again = Echo(), Echo()
    run(folder, template, *again)
    for arm in (BASE, TUNED):
        assert rows(folder, arm) == rows(whole, arm)
    assert len(again[1].batches) == 3 - batches
    assert len(again[0].batches) == 3 - answered + (1 if torn else 0)


def test_rows_of_other_examples_are_not_kept(tmp_path: Path, template: Template) -> None:
    run(tmp_path, template, Echo(), Echo())
    path = tmp_path / "tuned.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[1], lines[0], *lines[2:]]))
    engines = Echo(), Echo()
    run(tmp_path, template, *engines)
    assert (engines[0].batches, engines[1].batches) == ([], [4, 4, 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            '{"example": "nobody", "arm": "tuned", "judgement": "j", "prompt_hash": "", "prompt_tokens": 1, '
            '"text": "", "token_ids": [], "finish_reason": "stop"}',
            "an answer to example 'nobody' where one to 'e0' has to be",
        ),
        ('{"example": "e1"}', "not a sample"),
        ("{", "not JSON"),
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, template: Template, damage: str, message: str) -> None:
    run(tmp_path, template, Echo(), Echo())
    path = tmp_path / "tuned.jsonl"
    _, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([damage + "\n", *others]))
    with pytest.raises(UserError, match=f"tuned.jsonl:1: .*{message}"):
        load_evidence(tmp_path, ARMS, METRICS)


def test_an_unfinished_arm_is_left_out(tmp_path: Path, template: Template) -> None:
    run(tmp_path, template, Echo(), Echo())
    path = tmp_path / "tuned.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert set(load_evidence(tmp_path, ARMS, METRICS).arms) == {"copy-input", "base"}


def test_seeds_differ_by_example_and_arm_and_are_kept_when_sampling(tmp_path: Path, template: Template) -> None:
    generation = GENERATION.model_copy(update={"temperature": 1.0})
    prompts = render_prompts(EXAMPLES, template)
    arms = [generator(BASE, Echo()), generator(TUNED, Echo())]
    collect(prompts, arms, template, generation, tmp_path, lambda done, total: None)
    seeds = [
        json.loads(line)["seed"]
        for arm in (BASE, TUNED)
        for line in (tmp_path / f"{arm}.jsonl").read_text().splitlines()
    ]
    assert len(set(seeds)) == 20


class Remote:
    """Takes up one request a second, and shows the tokens of every other answer only."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [
            Completion((), " said\n", "stop", Timing(n, (n + 0.25,) if n % 2 else (), n + 0.5), Usage(9, n % 2))
            for n in range(len(requests))
        ]

    def forget(self) -> None:
        """There is nothing to forget."""


def test_times_of_a_batch_count_from_its_first_request(tmp_path: Path, template: Template) -> None:
    prompts = render_prompts(EXAMPLES[:4], None)
    remote = Generator("remote", Remote(), None, "j", None, prompts)
    collect(prompts, [remote], template, GENERATION, tmp_path, lambda done, total: None)
    kept = [json.loads(line) for line in (tmp_path / "remote.jsonl").read_text().splitlines()]
    assert [row["end_s"] for row in kept] == [0.5, 1.5, 2.5, 3.5]
    assert [row["first_token_s"] for row in kept] == [0.5, 1.25, 2.5, 3.25]
    assert [row["counted_tokens"] for row in kept] == [None, 1, None, 1]
    assert {(row["text"], row["prompt_tokens"], row["memory_bytes"]) for row in kept} == {("said", 9, None)}
    assert len({row["prompt_hash"] for row in kept}) == 4


def test_rows_of_another_judgement_are_not_kept(tmp_path: Path, template: Template) -> None:
    run(tmp_path, template, Echo(), Echo())
    prompts, engine = render_prompts(EXAMPLES, template), Echo()
    collect(prompts, [generator(TUNED, engine, "k")], template, GENERATION, tmp_path, lambda done, total: None)
    assert engine.batches == [4, 4, 2]
    assert load_evidence(tmp_path, ARMS, METRICS).arms["tuned"].judgements == {"k"}


def test_an_example_that_is_asked_several_times_has_its_answers_together(tmp_path: Path, template: Template) -> None:
    generation = GENERATION.model_copy(update={"temperature": 1.0, "repeats": 3})
    prompts = repeated(render_prompts(EXAMPLES, template), 3)
    write_atomic(tmp_path / "examples.jsonl", "".join(json.dumps(e.as_row()) + "\n" for e in EXAMPLES))
    copy_input(prompts, "j", tmp_path)
    collect(prompts, [generator(BASE, Echo())], template, generation, tmp_path, lambda done, total: None)
    evidence = load_evidence(tmp_path, ARMS, METRICS, repeats=3)
    assert evidence.count == len(EXAMPLES)
    answers = evidence.answers(BASE, 7)
    assert [(answer.example, answer.repeat) for answer in answers] == [("e7", 0), ("e7", 1), ("e7", 2)]
    assert len({answer.seed for answer in answers}) == 3
    assert evidence.scores("copy-input", METRICS[0]).tolist() == [1.0] * 10


def test_each_arm_is_as_often_the_first_as_the_last(tmp_path: Path, template: Template) -> None:
    order: list[str] = []

    class Noting(Echo):
        def __init__(self, arm: str) -> None:
            super().__init__()
            self.arm = arm

        def forget(self) -> None:
            order.append(self.arm)

    names = ["a", "b", "c"]
    arms = [generator(arm, Noting(arm)) for arm in names]
    collect(render_prompts(EXAMPLES, template), arms, template, GENERATION, tmp_path, lambda done, total: None)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_the_asking_stops_when_the_answers_decide(tmp_path: Path, template: Template) -> None:
    examples = [
        Example(f"e{n}", (Message("user", f"word {n}"),), (f"word {n}",), f"word {n}", f"g{n}") for n in range(200)
    ]
    prompts, looked = render_prompts(examples, template), []

    def certain() -> bool:
        counts = {len(rows(tmp_path, arm)) for arm in (BASE, TUNED)}
        assert len(counts) == 1
        looked.append(counts.pop())
        return looked[-1] >= 60

    arms = [generator(BASE, Echo()), generator(TUNED, Echo())]
    collect(prompts, arms, template, GENERATION, tmp_path, lambda done, total: None, certain)
    assert looked[0] == 20
    assert looked[-1] == len(rows(tmp_path, TUNED)) < 100
    again = [generator(BASE, Echo()), generator(TUNED, engine := Echo())]
    collect(prompts, again, template, GENERATION, tmp_path, lambda done, total: None, certain)
    assert engine.batches == []


@pytest.mark.usefixtures("isolated")
def test_code_is_run_and_its_outcome_stands_in_the_row(tmp_path: Path, template: Template) -> None:
    tests = "assert double(2) == 4"
    right, wrong = "def double(x):\n    return 2 * x", "def double(x):\n    return x"
    examples = [
        Example(f"e{n}", (Message("user", "word 1"),), (), code, f"g{n}", tests=tests)
        for n, code in enumerate((right, wrong, "no code ("))
    ]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(e.as_row()) + "\n" for e in examples))
    copy_input(render_prompts(examples, template), "j", tmp_path)
    evidence = load_evidence(tmp_path, ARMS, [metric("passes_tests")])
    assert evidence.scores("copy-input", metric("passes_tests")).tolist() == [1, 0, 0]
