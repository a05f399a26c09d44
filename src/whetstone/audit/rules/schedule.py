"""Training schedules that cannot have run: a warm-up longer than the training, more steps than there were batches."""

from collections.abc import Iterator
from math import ceil

from whetstone.audit.finding import Check
from whetstone.audit.material import Material
from whetstone.audit.quantities import Quantity, find_quantities, name_patterns, section_texts

__all__ = ["check_schedule"]

_NAMES = name_patterns(
    {
        "warmup": r"warm-?_?up[\s_]steps?",
        "steps": r"(?:(?:total|training|train|optimi[sz]er|max|gradient)[\s_]"
        r"(?:training\s|optimi[sz](?:er|ation)\s)?(?:steps?|iterations?))",
        "epochs": r"(?:num_train_epochs|(?:number of\s|training\s)?epochs?)",
        "batch": r"(?:(?:effective|total|global|train(?:ing)?|per[\s_]device(?:_train)?)?[\s_]?batch[\s_-]?size)",
        "examples": r"(?:train(?:ing)?[\s_](?:set\s)?(?:examples|samples|rows|pairs|sentences|records|size|set size)"
        r"|(?:examples|samples|rows|pairs|sentences|records)\s(?:for training|in training|in the training set))",
    }
)


def check_schedule(material: Material) -> Iterator[Check]:
    """Judges steps, where a report gives one value of each thing that they depend on."""
    found: dict[str, list[Quantity]] = {}
    for section in material.report.sections:
        for quantity in find_quantities(section_texts(section), _NAMES):
            found.setdefault(quantity.name, []).append(quantity)
    steps, warmup = _only(found, "steps"), _only(found, "warmup")
    epochs, batch = _only(found, "epochs"), _only(found, "batch")
    if steps is not None and warmup is not None:
        yield _warmup(steps, warmup)
    if steps is not None and epochs is not None and batch is not None and found.get("examples"):
        examples = max(found["examples"], key=lambda quantity: quantity.value)
        yield _batches(steps, epochs, batch, examples)


def _only(found: dict[str, list[Quantity]], name: str) -> Quantity | None:
    """The one value of a name; several stages of training have several."""
    values = found.get(name, [])
    return values[0] if len({quantity.value for quantity in values}) == 1 and values[0].value > 0 else None


def _warmup(steps: Quantity, warmup: Quantity) -> Check:
    if warmup.value < steps.value:
        return Check(warmup.claim)
    return Check.failed(
        "steps-against-schedule",
        "contradicted",
        warmup.claim,
        f"a warm-up of {warmup.value:,} steps does not end within the {steps.value:,} steps of line "
        f"{steps.claim.line}: the learning rate never reached its stated value",
        "state the greatest learning rate that was reached, or train again with a shorter warm-up",
    )


def _batches(steps: Quantity, epochs: Quantity, batch: Quantity, examples: Quantity) -> Check:
    most = epochs.value * ceil(examples.value / batch.value)
    if steps.value <= most:
        return Check(steps.claim)
    return Check.failed(
        "steps-against-schedule",
        "contradicted",
        steps.claim,
        f"{epochs.value} epochs of {examples.value:,} examples (line {examples.claim.line}) in batches of "
        f"{batch.value} (line {batch.claim.line}) are at most {most:,} steps, not {steps.value:,}",
        "correct the steps, epochs, batch size or number of examples",
    )
