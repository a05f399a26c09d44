"""What has to be true before numbers mean anything: rule, rows, weights and prompts are those of the judgement."""

from collections.abc import Mapping

import numpy as np

from whetstone.evaluate.evidence import Evidence
from whetstone.evaluate.sample import ASKED_ALIKE
from whetstone.evaluate.sanity import Sanity
from whetstone.judge_section import HELD_OUT
from whetstone.run import Judgement, Manifest
from whetstone.verdict.gate import Gate, proof

__all__ = ["SAME_PROMPTS", "proofs", "sanity_proofs"]

SAME_PROMPTS = "All arms answered the same prompts"
"""The name of the gate on the hashes of the prompts."""

_LATER = " The rule came after the answers: it can guard against changes, and proves less than one that came before."


def proofs(evidence: Mapping[str, Evidence], manifest: Manifest, *, later_rule: bool) -> list[Gate]:
    """The conditions that are simply true or false.

    Args:
        evidence: By suite.
        manifest: Of the run, with the judgement that was frozen.
        later_rule: The rule was given when the samples were there already, so it cannot be the one that was frozen.
    """
    judgement, base = manifest.judgement, manifest.base
    if judgement is None or base is None:
        return [
            Gate(
                name="A judgement was frozen",
                state="open",
                reason="Not measured: the run holds no record of rule, data and weights from before generation.",
                remedy="Call 'whet compare'.",
            )
        ]
    mismatches, total = _prompt_mismatches(evidence), sum(found.count for found in evidence.values())
    return [
        proof(
            f"{'Examples' if later_rule else 'Rule, examples'} and rows are those that were frozen",
            holds=(later_rule or judgement.rule_hash == manifest.experiment.judge.fingerprint())
            and _rows_belong(evidence, judgement),
            reasons=(
                "Their hashes are the ones in the run." + (_LATER if later_rule else ""),
                "A hash differs from the one in the run.",
            ),
            remedy="Restore run.json and samples/, or compare again with --fresh.",
        ),
        proof(
            "The weights differ from the base",
            holds=judgement.candidate.sha256 != base.sha256,
            reasons=("The hashes of the weights differ.", "The candidate's weights are the base's own."),
            remedy="Tune the model: a base compared with itself has nothing to ship.",
        ),
        proof(
            SAME_PROMPTS,
            holds=mismatches == 0,
            reasons=(
                f"The prompt hashes agree on all {total} examples{_asked_otherwise(evidence, judgement)}.",
                f"{mismatches} of {total} examples were asked with different token ids.",
            ),
            remedy="Compare again with --fresh: template or tokenizer changed between arms.",
        ),
    ]


def sanity_proofs(sanity: Sanity | None) -> list[Gate]:
    """Whether tuning changes what the model computes; nothing where that was not tried."""
    if sanity is None:
        return []
    return [
        proof(
            "Tuning changes what the model computes",
            holds=sanity.logit_change > 0,
            reasons=(
                f"On {sanity.prompts} prompts a logit moved by up to {sanity.logit_change:.3g}.",
                f"On {sanity.prompts} prompts no logit moved: the tuned weights are not in use, or have no effect.",
            ),
            remedy="Check that the adapter was trained and belongs to this base; tune again.",
        )
    ]


def _rows_belong(evidence: Mapping[str, Evidence], judgement: Judgement) -> bool:
    """Whether the examples are the frozen ones and every row was generated for this judgement."""
    frozen = {HELD_OUT: judgement.data_hash, **{suite.name: suite.data_hash for suite in judgement.suites}}
    rows = {mark for found in evidence.values() for arm in found.arms.values() for mark in arm.judgements}
    return all(found.data_hash == frozen.get(suite) for suite, found in evidence.items()) and rows <= {
        judgement.fingerprint()
    }


def _prompt_mismatches(evidence: Mapping[str, Evidence]) -> int:
    """On how many examples the arms that are asked alike were asked with different token ids."""
    wrong = 0
    for found in evidence.values():
        hashes = [found.arms[arm].prompt_hashes for arm in ASKED_ALIKE if arm in found.arms]
        if hashes:
            differs = np.any([one != hashes[0] for one in hashes], axis=0)
            wrong += int(differs.reshape(-1, found.repeats).any(axis=1).sum())
    return wrong


def _asked_otherwise(evidence: Mapping[str, Evidence], judgement: Judgement) -> str:
    """Which arms beside these were asked with other token ids, and why."""
    held_out = evidence[HELD_OUT]
    first = next((held_out.arms[arm] for arm in ASKED_ALIKE if arm in held_out.arms), None)
    said = []
    for arm in judgement.arms:
        found = held_out.arms.get(arm.name)
        if found is not None and first is not None and not np.array_equal(found.prompt_hashes, first.prompt_hashes):
            why = "rendered by the server" if arm.template_hash is None else "asked with its own template and tokenizer"
            said.append(f"; {arm.name}: {why}")
    return "".join(said)
