"""What the renderers say in the same words of the arms: what computed each of them, and how the extra ones compare."""

from whetstone.evaluate.sample import BASE, BASE_AGAIN, FEW_SHOT, TUNED
from whetstone.report import format as written
from whetstone.report.claims import Claims
from whetstone.report.summary import Summary
from whetstone.run import ArmRecord, Judgement, Manifest

__all__ = ["VARIANTS_CAPTION", "arm_words", "batch_words", "variant_words"]

VARIANTS_CAPTION = (
    "Arms beside the rule, each against the arm that it is a variant of: a description, no gate looks at it."
)


def arm_words(manifest: Manifest) -> dict[str, str]:
    """How each arm that generates holds its weights."""
    held = f"{manifest.experiment.model.dtype} weights"
    judgement, settings = manifest.judgement, manifest.settings
    tuned = held
    if settings is not None and settings.quantised and judgement is not None and "bitsandbytes" in judgement.packages:
        tuned = f"an adapter on a base in NF4 ({settings.weights} weights, products in {settings.precision})"
    extra = judgement.arms if judgement is not None else ()
    return {
        BASE: held,
        BASE_AGAIN: held,
        **_few_shot_words(judgement),
        TUNED: tuned,
        **{arm.name: _record_words(arm) for arm in extra},
    }


def _few_shot_words(judgement: Judgement | None) -> dict[str, str]:
    """What stood before the few-shot arm's questions, or why nothing did; nothing where no such arm was asked for."""
    if judgement is None:
        return {}
    if judgement.shots:
        return {FEW_SHOT: f"the base, after the solved training examples {', '.join(judgement.shots)}"}
    return {} if judgement.no_few_shot is None else {FEW_SHOT: f"left out: {judgement.no_few_shot}"}


def _record_words(arm: ArmRecord) -> str:
    return ", ".join(
        [
            arm.ref,
            arm.engine,
            f"{arm.dtype} weights" if arm.dtype else "precision not known",
            *([arm.quantisation] if arm.quantisation else []),
            *(["RANDOM WEIGHTS"] if arm.random_weights else []),
            *(f"{name} {version}" for name, version in arm.packages.items()),
            *(
                f"{kind} {digest}"
                for kind, digest in (("weights", arm.sha256), ("adapter", arm.adapter_sha256))
                if digest
            ),
        ]
    )


def batch_words(manifest: Manifest) -> str:
    """Why an answer is the same in every comparison."""
    size = manifest.experiment.judge.generation.batch_size
    return (
        f"batches of {size} with a fixed composition, the same for all arms: how numbers are rounded, above all in "
        "bfloat16, depends on what is computed together (a server makes batches of its own)"
    )


def variant_words(summary: Summary, claims: Claims, arm: str) -> str:
    """An extra arm against the arm that it is a variant of, on one line."""
    found, path = summary.variant(arm), f"variants.{arm}"
    if found is None:
        return f"{arm}: {written.UNMEASURED}"
    moved = claims.text(f"{path}.difference", written.difference(found.metric.unit))
    low, high = (
        claims.text(f"{path}.interval.{end}", written.bare_difference(found.metric.unit)) for end in ("low", "high")
    )
    return f"{arm} against {found.baseline}: {moved} [{low}, {high}] on {found.metric.title.lower()}; no gate"
