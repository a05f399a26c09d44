"""Every check of the examples, and the order in which their findings are told."""

from collections.abc import Sequence
from typing import get_args

from whetstone.data.example import Example
from whetstone.data.finding import Finding, Severity
from whetstone.data.lint import characters, duplicates, leaks, private, turns
from whetstone.data.split import Splits
from whetstone.data_section import Data, FindingCode

__all__ = ["lint"]


def lint(splits: Splits, data: Data, replay: Sequence[Example] = ()) -> list[Finding]:
    """Checks the examples; what the experiment allows is reported too, and left to the caller.

    Args:
        splits: The three parts.
        data: Says whether near duplicates are looked for, and from which similarity on.
        replay: General examples mixed into training. Their turns and characters are checked like all others; of
            duplicates only held-out sources among them are looked for.

    Returns:
        Errors, then warnings, then notes; each in the order of :data:`FindingCode`.
    """
    overlap = leaks.Overlap(splits, replay)
    task = (*splits.train, *splits.validation, *splits.test)
    examples = (*task, *replay)
    findings = [
        leaks.held_out_sources(overlap),
        leaks.held_out_pairs(overlap),
        duplicates.exact_duplicates(splits),
        turns.identity_pairs(splits),
        turns.empty_turns(examples),
        turns.role_order(examples),
        characters.mojibake(examples),
        characters.control_characters(examples),
        turns.contradictory_references(task),
        turns.label_imbalance(splits.train),
        turns.category_imbalance(splits),
        turns.length_outliers(task),
        private.personal_data(examples),
        private.secrets(examples),
        turns.small_test(splits.test),
    ]
    if data.lint.near_duplicates:
        findings += duplicates.near_duplicates(overlap, data.lint.jaccard)
    severities, codes = get_args(Severity), get_args(FindingCode)
    return sorted(
        (finding for finding in findings if finding),
        key=lambda finding: (severities.index(finding.severity), codes.index(finding.code)),
    )
