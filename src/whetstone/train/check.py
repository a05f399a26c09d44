"""Everything that can be known before a token is trained: leaks, faults, template, lengths, memory, speed.

``whet check`` prints it; ``whet tune`` makes the same checks first, stops at errors and keeps the result in the run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from transformers import PreTrainedConfig

from whetstone.data.example import Example
from whetstone.data.finding import EXAMPLES_SHOWN, Finding, Severity, excerpt
from whetstone.data.lint.lint import lint
from whetstone.data.load import load_data, load_replay
from whetstone.data.sources import SourceSummary
from whetstone.data.split import Splits
from whetstone.data.template import Template
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.models.device import choose_device
from whetstone.models.load import context_tokens, load_config, load_template, locate
from whetstone.models.scratch import scratch_config, scratch_texts, train_tokenizer
from whetstone.train.advice import alternatives
from whetstone.train.audit import TokenView, as_served, audit, audit_rows, follow_rows, view_tokens
from whetstone.train.batch import RowLengths, measure_lengths
from whetstone.train.estimate import MemoryEstimate, Plan, UnforeseeableError, estimate_memory, largest_batch
from whetstone.train.lengths import PartLengths, answer_findings, length_findings, summarise_lengths
from whetstone.train.settings import settle

__all__ = ["Checked", "check", "view_rows"]

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was read, and what was found in it.

    Attributes:
        splits: The three parts.
        replay: The examples to mix in.
        sources: What all of them were read from.
        template: What renders them.
        findings: Errors first.
        lengths: One entry for each part that has rows.
        memory: The estimate of the peak; None for architectures whose shapes depend on data.
        context_tokens: The longest sequence that the model takes.
    """

    splits: Splits
    replay: tuple[Example, ...]
    sources: tuple[SourceSummary, ...]
    template: Template
    findings: tuple[Finding, ...]
    lengths: tuple[PartLengths, ...]
    memory: MemoryEstimate | None
    context_tokens: int

    def stopping(self, experiment: Experiment) -> list[Finding]:
        """The errors that the experiment does not allow."""
        allowed = experiment.data.lint.allow
        return [finding for finding in self.findings if finding.severity == "error" and finding.code not in allowed]

    def refuse(self, experiment: Experiment) -> None:
        """Stops at the first error.

        Raises:
            UserError: There is one that the experiment does not allow.
        """
        stopping = self.stopping(experiment)
        if stopping:
            first = stopping[0]
            more = f" (and {len(stopping) - 1} more errors)" if len(stopping) > 1 else ""
            raise UserError(
                f"{first.code}{more}: {first.message} {first.mend} 'whet check' shows all; data.lint.allow: "
                f"[{first.code}] trains all the same"
            )

    def notes(self) -> tuple[str, ...]:
        """What was decided about the data, for the run's record."""
        allowed = [finding for finding in self.findings if finding.severity == "error"]
        skipped = sum(len(source.skipped) for source in self.sources)
        return (
            *(f"{finding.code}: {finding.message} Allowed by data.lint.allow." for finding in allowed),
            *((f"{skipped:,} malformed rows were left out (data.on_bad_row).",) if skipped else ()),
        )

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints and the run keeps."""
        return {
            "sources": [asdict(source) for source in self.sources],
            "parts": [part.as_row() for part in self.lengths],
            "findings": [finding.as_row() for finding in self.findings],
            "memory": self.memory.as_row() if self.memory else None,
            "template_hash": self.template.hash,
        }


def check(experiment: Experiment, say: Say) -> Checked:
    """Reads what an experiment trains on, and looks for everything that would make the result worthless.

    Args:
        experiment: What is to be trained.
        say: Told, in one line each, what is being done.

    Raises:
        UserError: Data or model cannot be read, so that there is nothing to check.
    """
    say("reading the data")
    data, replayed = load_data(experiment.data), load_replay(experiment.data)
    splits, replay = data.splits, replayed.examples if replayed else ()
    sources = (*data.sources, replayed.summary) if replayed else data.sources
    subject = _describe(experiment, splits)
    context = context_tokens(subject.config)
    say("looking for leaks and faults")
    findings = [*lint(splits, experiment.data, replay), *_skipped(sources), *_plain_text_tests(splits)]
    learned = {"train": splits.train, "validation": splits.validation, "replay": replay}
    learned = {name: part for name, part in learned.items() if part}
    say("auditing the template")
    findings += _audit(experiment, subject, list(learned.values()), splits.test, context)
    say("measuring lengths")
    lengths = {name: measure_lengths(part, subject.template, experiment.tune) for name, part in learned.items()}
    every_reference = experiment.tune.model_copy(update={"references": "all"})
    tested = measure_lengths(splits.test, subject.template, every_reference)
    limit = min(experiment.data.max_tokens, context)
    findings += length_findings(learned, lengths, experiment.data, limit)
    findings += answer_findings(splits, tested, experiment.judge, context)
    say("estimating memory")
    memory, memory_findings = _foresee_memory(experiment, subject, lengths, limit)
    findings += memory_findings
    parts = {**learned, "test": splits.test}
    limits = {**dict.fromkeys(learned, limit), "test": context}
    summaries = [
        summarise_lengths(name, part, {**lengths, "test": tested}[name], limits[name]) for name, part in parts.items()
    ]
    order = get_args(Severity)
    return Checked(
        splits=splits,
        replay=replay,
        sources=sources,
        template=subject.template,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        lengths=tuple(summaries),
        memory=memory,
        context_tokens=context,
    )


def view_rows(experiment: Experiment, checked: Checked, count: int) -> list[list[TokenView]]:
    """The first training rows, token by token, as they leave the collator."""
    template = checked.template
    limits = experiment.data, experiment.tune, checked.context_tokens
    rows = follow_rows(checked.splits.train[:count], template, *limits, served=template)
    return [view_tokens(row, template.tokenizer) for row in rows[:count]]


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is known of a model without its weights."""

    template: Template
    end_ids: Sequence[int]
    config: PreTrainedConfig


def _describe(experiment: Experiment, splits: Splits) -> _Subject:
    section = experiment.model
    if section.base is not None:
        folder = locate(section.base)
        template, end_ids = load_template(folder, section.template)
        return _Subject(template, end_ids, load_config(folder))
    if section.scratch is None:
        raise AssertionError("an experiment has a base or a shape")
    tokenizer = train_tokenizer(scratch_texts(splits.train), section.scratch.vocabulary_size)
    config = scratch_config(section.scratch, tokenizer)
    return _Subject(Template(tokenizer, section.template), [tokenizer.eos_token_id], config)


def _skipped(sources: Sequence[SourceSummary]) -> list[Finding]:
    skipped = [row for source in sources for row in source.skipped]
    if not skipped:
        return []
    total = sum(source.rows for source in sources)
    return [
        Finding(
            "skipped-row",
            "warning",
            len(skipped),
            total,
            f"{len(skipped):,} of {total:,} rows are malformed and were left out (data.on_bad_row: skip).",
            "Mend them.",
            tuple(f"{row.where}: {row.reason}" for row in skipped[:EXAMPLES_SHOWN]),
        )
    ]


def _plain_text_tests(splits: Splits) -> list[Finding]:
    plain = [example for example in splits.test if not example.messages]
    if not plain:
        return []
    return [
        Finding(
            "nothing-to-judge",
            "warning",
            len(plain),
            len(splits.test),
            f"{len(plain):,} of {len(splits.test):,} test examples are plain text, which asks nothing that could be "
            "answered, so 'whet compare' will refuse them.",
            "Give test rows with prompts: source: {train: ..., test: ...}.",
            tuple(f"{example.id}: {excerpt(example.source)}" for example in plain[:EXAMPLES_SHOWN]),
        )
    ]


def _audit(
    experiment: Experiment,
    subject: _Subject,
    learned: Sequence[Sequence[Example]],
    test: Sequence[Example],
    context: int,
) -> list[Finding]:
    template, tune = subject.template, experiment.tune
    served = as_served(template)
    # The test part is not learned, so it is not cut either.
    whole = experiment.data.model_copy(update={"too_long": "raise"})
    rows = [
        row
        for part, data in (*((part, experiment.data) for part in learned), (test, whole))
        for row in audit_rows(part, template, data, tune, context, served)
    ]
    return audit(rows, template.tokenizer, template.stop_ids(subject.end_ids), subject.end_ids)


def _foresee_memory(
    experiment: Experiment, subject: _Subject, lengths: Mapping[str, RowLengths], limit_tokens: int
) -> tuple[MemoryEstimate | None, list[Finding]]:
    """The estimate, where there can be one, and what to change when training does not fit."""
    tune, replay = experiment.tune, experiment.data.replay
    batch = largest_batch(
        lengths["train"], lengths.get("replay"), tune, limit_tokens, replay.fraction if replay else 0.0
    )
    device = choose_device(experiment.model.device)
    plan = Plan(subject.config, tune, settle(experiment, device, subject.config), batch, device)
    try:
        memory = estimate_memory(plan)
    except UnforeseeableError as error:
        return None, [Finding("memory", "note", 1, 1, f"{error}.", "Start with a small tune.batch_size.")]
    if memory.fits:
        return memory, []
    needed, there = memory.needed_bytes, memory.held_bytes + memory.available_bytes
    ways = tuple(way.text for way in alternatives(plan))
    return memory, [
        Finding(
            "memory",
            "warning",
            1,
            1,
            f"Training needs about {needed / 1e9:.2f} GB on {memory.device}, and {there / 1e9:.2f} GB are there.",
            "Set one of these." if ways else "Take a smaller base: no batch size, length or data type makes it fit.",
            ways,
        )
    ]
