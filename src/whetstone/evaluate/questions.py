"""What is asked of the arms: the suites of a judgement, rendered once for all arms that are asked alike."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from whetstone.data.split import Splits
from whetstone.data.template import Template
from whetstone.errors import UserError
from whetstone.evaluate.collect import Prompt, render_prompts, repeated
from whetstone.evaluate.evidence import data_hash
from whetstone.evaluate.suite import Suite, held_out, load_suite
from whetstone.judge_section import HELD_OUT, Judge
from whetstone.run import SuiteRecord
from whetstone.sandbox import require_sandbox
from whetstone.section import stable_hash

__all__ = ["Questions", "ask_all", "refuse_beyond_context"]


@dataclass(frozen=True, slots=True)
class Questions:
    """A suite as the arms are asked it.

    Attributes:
        suite: What is asked.
        prompts: Each example as often as it is asked; for the arms that are asked alike.
        after_shots: The same after solved examples; None where there is no few-shot arm.
        no_few_shot: Why there is none, where one was asked for.
    """

    suite: Suite
    prompts: tuple[Prompt, ...]
    after_shots: tuple[Prompt, ...] | None
    no_few_shot: str | None

    def repeat(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Other prompts of the same examples, as often as these."""
        return repeated(prompts, self.suite.generation.repeats)

    def record(self) -> SuiteRecord:
        """What the judgement says of it."""
        suite = self.suite
        return SuiteRecord(
            name=suite.name,
            about=suite.about,
            origin=suite.origin,
            data_hash=data_hash(suite.as_jsonl()),
            prompts_hash=stable_hash([prompt.hash for prompt in self.prompts]),
            metrics=suite.metrics,
            repeats=suite.generation.repeats,
            max_new_tokens=suite.generation.max_new_tokens,
            temperature=suite.generation.temperature,
        )


def ask_all(splits: Splits, judge: Judge, template: Template, context: int) -> list[Questions]:
    """Renders the held-out examples and every suite.

    Args:
        splits: The experiment's data.
        judge: Says which suites, and how they are asked.
        template: Of the base.
        context: How many tokens the base takes.

    Raises:
        UserError: A suite cannot be read, a question and its answer do not fit into the context, or answers are code
            that cannot be run safely here.
    """
    suites = [held_out(splits, judge), *(load_suite(origin, judge) for origin in judge.suites)]
    if any(example.tests is not None for suite in suites for example in suite.examples):
        require_sandbox()
    return [_ask(suite, judge, template, context) for suite in suites]


def _ask(suite: Suite, judge: Judge, template: Template, context: int) -> Questions:
    times = suite.generation.repeats
    prompts = tuple(repeated(render_prompts(suite.examples, template), times))
    if suite.is_text:
        return Questions(suite, prompts, None, None)
    refuse_beyond_context(prompts, context, suite)
    reason = "the training part has no solved examples" if judge.few_shot and suite.name == HELD_OUT else None
    for count in range(min(judge.few_shot, len(suite.shots)), 0, -1):
        shots = suite.shots[:count]
        try:
            after_shots = tuple(repeated(render_prompts(suite.examples, template, shots), times))
            refuse_beyond_context(after_shots, context, suite)
        except UserError as error:
            reason = f"not even one solved example has room before the question: {error}"
            continue
        return Questions(dataclasses.replace(suite, shots=shots), prompts, after_shots, None)
    return Questions(suite, prompts, None, reason)


def refuse_beyond_context(prompts: Sequence[Prompt], limit: int, suite: Suite) -> None:
    """Refuses a question that leaves no room for its answer.

    Raises:
        UserError: It names the example.
    """
    new_tokens = suite.generation.max_new_tokens
    key = "judge.generation.max_new_tokens" if suite.name == HELD_OUT else f"max_new_tokens of suite '{suite.name}'"
    for prompt in prompts:
        if len(prompt.token_ids) + new_tokens > limit:
            raise UserError(
                f"example '{prompt.example.id}': a prompt of {len(prompt.token_ids)} tokens and "
                f"{key} ({new_tokens}) exceed the context of {limit}; lower it"
            )
