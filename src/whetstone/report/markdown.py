"""The report as GitHub Markdown, with the charts as files beside it."""

import re

from whetstone.evaluate.sample import BASE
from whetstone.report import format as written
from whetstone.report.arms import VARIANTS_CAPTION, arm_words, batch_words
from whetstone.report.claims import Claims, suite_title, unguarded_loss
from whetstone.report.machine import as_json
from whetstone.report.markdown_evidence import (
    categories_section,
    corpus_tables,
    recommendations_section,
    sanity_section,
    suites_section,
    tradeoff_section,
)
from whetstone.report.markdown_table import span, table
from whetstone.report.suite_summary import BASELINES, Change
from whetstone.report.summary import Summary
from whetstone.report.training import (
    RETENTION_CAPTION,
    forgotten_sentence,
    retention_interval,
    retention_paths,
    settings_words,
)
from whetstone.run import WeightsRecord

__all__ = ["render_markdown"]

_SAMPLES_SHOWN = 3


def render_markdown(summary: Summary) -> str:
    """Renders the report; ``forest.svg`` and ``training.svg`` are expected in the same folder."""
    claims = Claims(as_json(summary))
    sections = [
        _verdict(summary, claims),
        recommendations_section(claims),
        _effects(summary, claims),
        _arms(summary, claims),
        *corpus_tables(summary, summary.held_out, claims),
        categories_section(summary, claims),
        *suites_section(summary, claims),
        _flips(claims),
        _samples(summary),
        tradeoff_section(summary, claims),
        _cost(summary, claims),
        sanity_section(summary, claims),
        _manifest(summary),
    ]
    return "\n\n".join(sections) + "\n"


def _verdict(summary: Summary, claims: Claims) -> str:
    judgement = summary.manifest.judgement
    frozen = f"When the rule was frozen: {written.UNMEASURED}."
    if judgement is not None:
        frozen = f"Rule `{judgement.rule_hash}`, frozen {judgement.frozen_at}, before the first token was generated."
    examples, groups = (claims.text(f"examples.{name}", written.count) for name in ("n", "groups"))
    rows = [[f"**{gate.state}**", gate.name, f"{gate.reason} {gate.remedy}".rstrip()] for gate in summary.verdict.gates]
    rows += [
        [
            "**worse**",
            f"Outside the rule: {suite_title(suite, found.metric.title)}",
            unguarded_loss(claims, suite, found),
        ]
        for suite, found in summary.unguarded_losses
    ]
    paths = retention_paths(summary.manifest)
    rows += [
        ["**worse**", f"Outside the rule: {found.source}", forgotten_sentence(claims, paths[found.source])]
        for found in summary.forgotten
    ]
    return (
        f"# {summary.verdict.outcome}: {summary.manifest.name}\n\n"
        f"{frozen} {examples} held-out examples in {groups} groups.\n\n{table(['State', 'Gate', 'Reason'], rows)}"
    )


def _effects(summary: Summary, claims: Claims) -> str:
    rows = [
        [
            metric.title,
            f"{metric.direction} is better",
            over,
            *_difference(claims, f"comparisons.{metric.name}.{over}", metric.unit),
        ]
        for over in BASELINES
        for metric in summary.held_out.metrics
        if metric.direction != "neutral"
    ]
    chart = "![Paired differences; right of zero is better](forest.svg)\n\n" if summary.held_out.comparisons else ""
    effects = table(["Metric", "Direction", "Tuned against", "Difference", "Interval", "n", "p"], rows)
    return "\n\n".join([f"## What tuning changed\n\n{chart}{effects}", *_variants(summary, claims)])


def _variants(summary: Summary, claims: Claims) -> list[str]:
    """The arms beside the four; nothing where there are none."""
    unit = summary.primary.unit
    rows = [
        [arm.name, arm.baseline, *_difference(claims, f"variants.{arm.name}", unit)[:-1]]
        for arm in summary.manifest.experiment.judge.arms
    ]
    head = ["Arm", "Against", f"{summary.primary.title}: difference", "Interval", "n"]
    return [VARIANTS_CAPTION, table(head, rows)] if rows else []


def _difference(claims: Claims, path: str, unit: str) -> list[str]:
    """Difference, interval, n and p of a comparison."""
    return [
        claims.text(f"{path}.difference", written.difference(unit)),
        span(claims, f"{path}.interval", written.bare_difference(unit)),
        claims.text(f"{path}.n", written.count),
        claims.text(f"{path}.p_value", written.p_value).removeprefix("= "),
    ]


def _arms(summary: Summary, claims: Claims) -> str:
    rows = [
        [f"{metric.title}: {metric.definition}"]
        + [_estimate(claims, f"arms.{arm}.{metric.name}", metric.unit) for arm in summary.arm_names]
        for metric in summary.held_out.metrics
    ]
    return f"## Every arm on every metric\n\n{table(['Metric', *summary.arm_names], rows)}"


def _estimate(claims: Claims, path: str, unit: str) -> str:
    if claims.value(path) is None:
        return written.UNMEASURED
    mean, n = claims.text(f"{path}.mean", written.score(unit)), claims.text(f"{path}.n", written.count)
    return f"**{mean}** ({span(claims, f'{path}.interval', written.bare_score(unit))}), n = {n}"


def _flips(claims: Claims) -> str:
    matrix = f"Exact match of base against tuned: {written.UNMEASURED}."
    if claims.value("flips") is not None:
        right, fixed, broken, wrong = (
            claims.text(f"flips.{name}", written.count) for name in ("both_right", "fixed", "broken", "both_wrong")
        )
        p = claims.text("comparisons.exact_match.base.p_value", written.p_value)
        method = claims.text("comparisons.exact_match.base.p_method")
        rows = [["**Base right**", right, f"{broken} broken"], ["**Base wrong**", f"{fixed} fixed", wrong]]
        matrix = (
            f"{table(['Exact match', 'Tuned right', 'Tuned wrong'], rows)}\n\n"
            f"Had tuning done nothing, as many would break as get fixed: p {p} ({method})."
        )
    return f"## Fixed and broken\n\n{matrix}\n\n{_noise(claims)}"


def _noise(claims: Claims) -> str:
    found = claims.value("noise_floor")
    if found is None:
        return f"Noise floor: {written.UNMEASURED}, the base was not asked a second time."
    scored = claims.value(f"metrics.{found['metric']}")
    moved, interval, n, _ = _difference(claims, "noise_floor", scored["unit"])
    return (
        f"Noise floor: the base, asked again with nothing changed, moved by {moved} on {scored['title'].lower()} "
        f"({interval}, n = {n})."
    )


def _samples(summary: Summary) -> str:
    if summary.comparison("exact_match", BASE) is None:
        return f"## Samples\n\nFixed and broken samples: {written.UNMEASURED}."
    parts = ["## Samples"]
    held_out = summary.held_out
    for title, changes in (("Worst regressions", held_out.broken), ("Fixes", held_out.fixed)):
        parts.append(f"### {title}")
        parts.extend(_sample(held_out.change(index)) for index in changes[:_SAMPLES_SHOWN])
        if not changes:
            parts.append("None.")
    return "\n\n".join(parts)


def _sample(change: Change) -> str:
    """A fenced block: whatever the texts hold, nothing in it is Markdown or HTML."""
    example = change.example
    texts = [
        ("  input     ", example.source),
        ("- base      ", change.baseline.text),
        ("+ tuned     ", change.candidate.text),
        *(("  reference ", reference) for reference in example.references),
    ]
    body = "\n".join(f"{label} {written.one_line(text) or '(empty)'}" for label, text in texts)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", body)), default=0))
    return f"{fence}diff\n{body}\n{fence}"


def _cost(summary: Summary, claims: Claims) -> str:
    speed = [
        [
            arm,
            claims.text(f"speed.{arm}.tokens_per_s", written.rate),
            claims.text(f"speed.{arm}.first_token_p50_s", written.duration),
            claims.text(f"speed.{arm}.latency_p50_s", written.duration),
            claims.text(f"speed.{arm}.memory_bytes", written.byte_size),
        ]
        for arm in summary.arm_names
    ]
    head = ["Arm", "Tokens per second", "Median time to first token", "Median time to answer", "Peak memory"]
    training = [
        ["Optimiser steps", claims.text("manifest.tuning.steps", written.count)],
        ["Tokens learned from", claims.text("manifest.tuning.loss_tokens", written.count)],
        ["Duration", claims.text("manifest.tuning.duration_s", written.duration)],
        ["Peak memory", claims.text("manifest.tuning.peak_memory_bytes", written.byte_size)],
    ]
    curve = "![Loss by optimiser step](training.svg)" if summary.losses else f"Training curve: {written.UNMEASURED}."
    tables = [table(head, speed), table(["Training", ""], training)]
    return "\n\n".join(["## Speed, memory and training", *tables, curve, *_retention(summary, claims)])


def _retention(summary: Summary, claims: Claims) -> list[str]:
    """What is left of what the base could do beside the task; nothing where the run did not measure it."""
    rows = [
        [
            source,
            claims.text(f"{path}.texts", written.count),
            claims.text(f"{path}.nll_before", written.decimal),
            claims.text(f"{path}.nll_after", written.decimal),
            claims.text(f"{path}.difference", written.decimal_difference),
            retention_interval(claims, path),
        ]
        for source, path in retention_paths(summary.manifest).items()
    ]
    head = ["Retention", "Texts", "Before", "After", "Difference", "Interval"]
    return [RETENTION_CAPTION, table(head, rows)] if rows else []


def _manifest(summary: Summary) -> str:
    manifest = summary.manifest
    data = manifest.data.hashes if manifest.data else {}
    tuned = manifest.judgement.candidate if manifest.judgement else None
    rows = [
        ["Run", f"{manifest.name}, begun {manifest.created_at}"],
        ["Code", f"Whetstone {manifest.whetstone_version}, commit {manifest.git_commit or written.UNMEASURED}"],
        ["Experiment", f"`{manifest.experiment_hash}`"],
        *([["Training", settings]] if (settings := settings_words(manifest)) is not None else []),
        ["Base weights", _weights(manifest.base)],
        ["Tuned weights", _weights(tuned)],
        *([f"Arm {arm}", said] for arm, said in arm_words(manifest).items()),
        ["Generation", batch_words(manifest)],
        ["Data", ", ".join(f"{split} `{digest}`" for split, digest in data.items()) or written.UNMEASURED],
        ["Hardware", f"{manifest.hardware.processor}, {manifest.hardware.cores} cores, {manifest.hardware.system}"],
        ["Packages", ", ".join(f"{name} {version}" for name, version in manifest.packages.items())],
        ["Notes", " ".join(manifest.notes) or "none"],
    ]
    return f"## What this rests on\n\n{table(['', ''], rows)}"


def _weights(record: WeightsRecord | None) -> str:
    return written.UNMEASURED if record is None else f"{record.origin} `{record.sha256}`"
