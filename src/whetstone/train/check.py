"""Everything that can be known before a token is trained: leaks, faults, template, lengths, memory, speed.

``whet check`` prints it; ``whet tune`` makes the same checks first, stops at errors and keeps the result in the run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from whetstone.data.example import Example
from whetstone.data.finding import EXAMPLES_SHOWN, Finding
from whetstone.data.lint.lint import lint
from whetstone.data.load import LoadedData, load_data, load_replay
from whetstone.data.sources import SourceSummary
from whetstone.data.template import Template
from whetstone.errors import UserError
from whetstone.experiment import Experiment, Tune
from whetstone.models.load import load_template, locate
from whetstone.models.scratch import train_tokenizer
from whetstone.train.audit import as_served, audit, audit_rows
from whetstone.train.batch import measure_lengths
from whetstone.train.lengths import PartLengths, answer_findings, length_findings, summarise_lengths

__all__ = ["Checked", "check"]

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was read, and what was found in it.

    Attributes:
        data: The parts, and what they were read from.
        replay: The examples to mix in.
        template: What renders them.
        findings: Errors first.
        lengths: One entry for each part that has rows.
        memory: The estimate of the peak.
    """

    data: LoadedData
    replay: tuple[Example, ...]
    template: Template
    findings: tuple[Finding, ...]
    lengths: tuple[PartLengths, ...]
    memory: MemoryEstimate

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
                f"{first.code}: {first.message}; {first.mend}{more}. 'whet check' shows all; "
                f"data.lint.allow: [{first.code}] trains all the same"
            )

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints and the run keeps."""
        return {
            "sources": [source.as_row() for source in self.data.sources],
            "parts": [part.as_row() for part in self.lengths],
            "findings": [finding.as_row() for finding in self.findings],
            "memory": self.memory.as_row(),
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
    data, replay = load_data(experiment.data), load_replay(experiment.data)
    say("looking for leaks and faults")
    findings = lint(data.splits, experiment.data, replay)
    findings += _skipped(data.sources)
    template, end_ids, config = _describe_model(experiment, data)
    parts = {"train": data.splits.train, "validation": data.splits.validation, "replay": replay}
    parts = {name: part for name, part in parts.items() if part}
    say("auditing the template")
    findings += _audit(experiment, [*parts.values(), data.splits.test], template, end_ids, context)
    say("measuring lengths")
    lengths = {name: measure_lengths(part, template, experiment.tune) for name, part in parts.items()}
    limit = min(experiment.data.max_tokens, context)
    findings += length_findings(parts, lengths, experiment.data, limit)
    all_references = experiment.tune.model_copy(update={"references": "all"})
    tested = measure_lengths(data.splits.test, template, all_references)
    findings += answer_findings(data.splits, tested, experiment.judge, context)
