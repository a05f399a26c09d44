"""What the renderers say in the same words of a training: its settings, and what it left of the base."""

from whetstone.report import format as written
from whetstone.report.claims import Claims
from whetstone.run import Manifest

__all__ = [
    "RETENTION_CAPTION",
    "forgotten_sentence",
    "retention_interval",
    "retention_paths",
    "retention_words",
    "settings_words",
]

RETENTION_CAPTION = "Loss of text beside the task, in nats per token; intervals are of 95%, over texts."
"""The level is that of every :class:`whetstone.run.RetentionRecord`."""


def settings_words(manifest: Manifest) -> str | None:
    """The method and what training really used; None in a run that did not record it."""
    used = manifest.settings
    if used is None:
        return None
    said = [
        manifest.experiment.tune.method,
        f"{used.weights} weights" + (" over a base in NF4" if used.quantised else ""),
        f"products in {used.precision}",
        f"attention {used.attention}",
        f"optimiser {used.optimiser}",
        *(["layers compiled"] if used.compiled else []),
        *(["activations computed twice"] if used.activation_checkpointing else []),
    ]
    return ", ".join(said)


def retention_paths(manifest: Manifest) -> dict[str, str]:
    """Where a report holds the losses of each source of text."""
    return {record.source: f"manifest.retention.{index}" for index, record in enumerate(manifest.retention)}


def retention_interval(claims: Claims, path: str) -> str:
    """The interval of a source's difference; a single text has none."""
    if claims.value(f"{path}.low") is None:
        return written.UNMEASURED
    low, high = (claims.text(f"{path}.{end}", written.decimal_difference) for end in ("low", "high"))
    return f"{low} to {high}"


def retention_words(claims: Claims, path: str) -> str:
    """The losses of a source on one line."""
    before, after = (claims.text(f"{path}.nll_{when}", written.decimal) for when in ("before", "after"))
    difference = claims.text(f"{path}.difference", written.decimal_difference)
    interval, texts = retention_interval(claims, path), claims.text(f"{path}.texts", written.count)
    return (
        f"{claims.text(f'{path}.source')}: {before} before, {after} after, {difference} nats per token "
        f"({interval}; {texts} texts)"
    )


def forgotten_sentence(claims: Claims, path: str) -> str:
    """What Markdown and the terminal say of text that the tuned weights predict worse than the base."""
    source = claims.text(f"{path}.source")
    difference = claims.text(f"{path}.difference", written.decimal_difference)
    before, after = (claims.text(f"{path}.nll_{when}", written.decimal) for when in ("before", "after"))
    return (
        f"{source[:1].upper()}{source[1:]} got worse by {difference} nats per token "
        f"({retention_interval(claims, path)}; {before} before tuning, {after} after it); no gate looks at it."
    )
