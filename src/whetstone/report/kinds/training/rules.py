"""What to do about a training: rules over its rows, each of which names the numbers that it rests on.

Notable: a rule that lacks what it looks at says nothing. Thresholds are conventions, not tests; where a rule speaks of
a trend, it gives the interval of the slope.
"""

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from scipy import stats

from whetstone.report.kinds.advice import Advice, Number
from whetstone.report.kinds.training.evidence import Evidence
from whetstone.report.kinds.training.schema import Point, Row

__all__ = ["RULES", "recommend"]

_RISES = 2
"""So many rises of the validation loss in a row are taken for overfitting."""
_WORSE_SHARE = 0.01
"""From this share on, a last validation loss is worth telling from the best."""
_FEWEST_ROWS = 12
"""A trend over a quarter of the rows needs so many of them."""
_FALL_SHARE = 0.02
"""A fall of the loss over the last quarter below this share of it is called flat."""
_FULL_SHARE = 0.9
"""From this share of the machine's memory on, a longer batch may not fit."""
_SLOWER_SHARE = 0.1
_CLIPPED_SHARE = 0.5
_IDLE_PERCENT = 50.0


def recommend(evidence: Evidence) -> tuple[Advice, ...]:
    """What all rules say, the worst first."""
    said = [advice for rule in RULES for advice in rule(evidence)]
    return tuple(sorted(said, key=lambda advice: ("bad", "open", "good").index(advice.tone)))


def unfinished(evidence: Evidence) -> Iterator[Advice]:
    """The run has no tuned weights: its numbers are of the part that was made."""
    if evidence.manifest.tuning is not None or not evidence.rows:
        return
    last = evidence.rows[-1]
    numbers = {"step": Number(value=last.step, unit="count")}
    of = ""
    if last.steps is not None:
        of, numbers["steps"] = " of {steps}", Number(value=last.steps, unit="count")
    yield Advice(
        rule="unfinished",
        tone="bad",
        title="The training did not end",
        evidence=f"The last logged step is {{step}}{of}, and the run records no tuned weights.",
        action="Go on with 'whet tune --resume', or begin anew with --fresh. If the guard stopped it, do what it said.",
        numbers=numbers,
    )


def not_finite(evidence: Evidence) -> Iterator[Advice]:
    """A loss or a gradient was no number."""
    broken = [row.step for row in evidence.rows if row.loss is None or row.gradient_norm is None]
    if not broken:
        return
    yield Advice(
        rule="not_finite",
        tone="bad",
        title="A loss or a gradient was not a number",
        evidence="In {rows} logged rows, first at step {step}.",
        action="Lower tune.learning_rate, or set tune.precision to float32.",
        numbers={
            "rows": Number(value=len(broken), unit="count"),
            "step": Number(value=broken[0], unit="count"),
        },
    )


def overfitting(evidence: Evidence) -> Iterator[Advice]:
    """The validation loss rose for the last points while the training loss fell."""
    points = _validation(evidence.rows)
    rises = _last_rises(points)
    if rises < _RISES:
        return
    turn, last = points[-1 - rises], points[-1]
    before, after = _loss_up_to(evidence.rows, turn.step), _loss_up_to(evidence.rows, last.step)
    if before is None or after is None or after >= before:
        return
    yield Advice(
        rule="overfitting",
        tone="bad",
        title="It overfits",
        evidence=(
            "The validation loss rose for the last {rises} of {points} points, from {lowest} at step {turn} to {last} "
            "at step {last_step}, while the training loss fell from {before} to {after}."
        ),
        action=(
            "Keep the weights of the best validation loss (tune.validation.keep: best), stop early "
            "(tune.validation.patience), or train fewer steps on more varied data."
        ),
        numbers={
            "rises": Number(value=rises, unit="count"),
            "points": Number(value=len(points), unit="count"),
            "lowest": Number(value=turn.value, unit="loss"),
            "turn": Number(value=turn.step, unit="count"),
            "last": Number(value=last.value, unit="loss"),
            "last_step": Number(value=last.step, unit="count"),
            "before": Number(value=before, unit="loss"),
            "after": Number(value=after, unit="loss"),
        },
    )


def better_weights_earlier(evidence: Evidence) -> Iterator[Advice]:
    """The last weights were kept although earlier ones had a lower validation loss."""
    points = _validation(evidence.rows)
    if not points or evidence.manifest.experiment.tune.validation.keep != "last":
        return
    best, last = min(points, key=lambda point: point.value), points[-1]
    if last.value <= best.value * (1 + _WORSE_SHARE):
        return
    yield Advice(
        rule="better_weights_earlier",
        tone="open",
        title="Earlier weights predicted better",
        evidence="The validation loss was {best} at step {best_step}; the weights that were kept have {last}.",
        action="Set tune.validation.keep to best.",
        numbers={
            "best": Number(value=best.value, unit="loss"),
            "best_step": Number(value=best.step, unit="count"),
            "last": Number(value=last.value, unit="loss"),
        },
    )


def validation_missing(evidence: Evidence) -> Iterator[Advice]:
    """Nothing was held back to see overfitting with."""
    if not evidence.rows or _validation(evidence.rows):
        return
    yield Advice(
        rule="validation_missing",
        tone="open",
        title="Overfitting was not measured",
        evidence="None of the {rows} logged rows has a validation loss, so a falling training loss proves nothing new.",
        action="Hold examples back: data.split.validation, or a validation file in data.source.",
        numbers={"rows": Number(value=len(evidence.rows), unit="count")},
    )


def still_falling(evidence: Evidence) -> Iterator[Advice]:
    """The training loss had not levelled off; silent where the validation loss is past its best."""
    logged = [Point(step=row.step, value=row.loss) for row in evidence.rows if row.loss is not None]
    points = _validation(evidence.rows)
    if len(logged) < _FEWEST_ROWS or (points and points[-1].value > min(point.value for point in points)):
        return
    end = logged[-max(5, len(logged) // 4) :]
    steps = end[-1].step - end[0].step
    fit = stats.linregress([point.step for point in end], [point.value for point in end])
    reach = float(stats.t.ppf(0.975, len(end) - 2)) * float(fit.stderr)
    slope = float(fit.slope)
    if slope + reach >= 0 or -slope * steps < _FALL_SHARE * abs(end[-1].value):
        return
    yield Advice(
        rule="still_falling",
        tone="open",
        title="It was still learning",
        evidence=(
            "Over the last {steps} steps the training loss changed by {slope} per hundred steps (least squares, "
            "{low} to {high})."
        ),
        action="More steps may bring more (tune.epochs, tune.steps); the validation loss decides whether they do.",
        numbers={
            "steps": Number(value=steps, unit="count"),
            "slope": Number(value=100 * slope, unit="slope"),
            "low": Number(value=100 * (slope - reach), unit="slope"),
            "high": Number(value=100 * (slope + reach), unit="slope"),
        },
    )


def memory_nearly_full(evidence: Evidence) -> Iterator[Advice]:
    """The peak came near to what the machine has."""
    peak = max((row.memory_bytes for row in evidence.rows if row.memory_bytes is not None), default=None)
    machine = machine_memory(evidence)
    if peak is None or machine is None or peak < _FULL_SHARE * machine:
        return
    yield Advice(
        rule="memory_nearly_full",
        tone="open",
        title="Memory was nearly full",
        evidence="The peak was {peak}, {share} of the {machine} that there is.",
        action=(
            "Before longer rows or a larger base: lower tune.batch_size and raise tune.accumulation as much, or set "
            "tune.activation_checkpointing."
        ),
        numbers={
            "peak": Number(value=peak, unit="bytes"),
            "share": Number(value=peak / machine, unit="share"),
            "machine": Number(value=machine, unit="bytes"),
        },
    )


def slower(evidence: Evidence) -> Iterator[Advice]:
    """The rate fell from the first to the last quarter of the rows; the first row, which warms up, does not count."""
    rates = [row.tokens_per_s for row in evidence.rows[1:] if row.tokens_per_s is not None]
    if len(rates) < _FEWEST_ROWS:
        return
    quarter = len(rates) // 4
    early, late = median(rates[:quarter]), median(rates[-quarter:])
    if late > (1 - _SLOWER_SHARE) * early:
        return
    numbers = {
        "share": Number(value=1 - late / early, unit="share"),
        "early": Number(value=early, unit="rate"),
        "late": Number(value=late, unit="rate"),
    }
    warm = [row.gpu_temperature_c or row.cpu_temperature_c for row in evidence.rows]
    hottest = max((found for found in warm if found is not None), default=None)
    heat = ""
    if hottest is not None:
        heat, numbers["hottest"] = "; the hottest reading was {hottest}", Number(value=hottest, unit="temperature")
    yield Advice(
        rule="slower",
        tone="open",
        title="Training slowed down",
        evidence=(
            "From the first to the last quarter of the rows the median rate fell by {share}, from {early} to {late} "
            f"tokens a second{heat}."
        ),
        action="Look for heat and for other processes in the charts below; rates of rows of other lengths differ, too.",
        numbers=numbers,
    )


def mostly_clipped(evidence: Evidence) -> Iterator[Advice]:
    """Most gradients were cut to the limit, so the learning rate says little about the size of a step."""
    limit = evidence.manifest.experiment.tune.max_gradient_norm
    norms = [row.gradient_norm for row in evidence.rows if row.gradient_norm is not None]
    clipped = sum(norm > limit for norm in norms)
    if len(norms) < _FEWEST_ROWS or clipped < _CLIPPED_SHARE * len(norms):
        return
    yield Advice(
        rule="mostly_clipped",
        tone="open",
        title="Most gradients were clipped",
        evidence="{clipped} of {n} logged gradient norms exceed tune.max_gradient_norm; their median is {median}.",
        action="Lower tune.learning_rate, or raise tune.max_gradient_norm if the loss falls smoothly.",
        numbers={
            "clipped": Number(value=clipped, unit="count"),
            "n": Number(value=len(norms), unit="count"),
            "median": Number(value=median(norms), unit="loss"),
        },
    )


def gpu_idle(evidence: Evidence) -> Iterator[Advice]:
    """The GPU waited most of the time."""
    busy = [row.gpu_percent for row in evidence.rows if row.gpu_percent is not None]
    if len(busy) < _FEWEST_ROWS or median(busy) >= _IDLE_PERCENT:
        return
    yield Advice(
        rule="gpu_idle",
        tone="open",
        title="The GPU was mostly idle",
        evidence="Its median load over {n} readings was {median}.",
        action="Raise tune.batch_size (and lower tune.accumulation as much) for as long as memory allows.",
        numbers={
            "n": Number(value=len(busy), unit="count"),
            "median": Number(value=median(busy) / 100, unit="share"),
        },
    )


def forgotten(evidence: Evidence) -> Iterator[Advice]:
    """Text beside the task is predicted worse than before, beyond the interval."""
    replayed = evidence.manifest.experiment.data.replay is not None
    ways = "Raise data.replay.fraction" if replayed else "Mix in replayed examples (data.replay)"
    for record in evidence.manifest.retention:
        if record.low is None or record.high is None or record.low <= 0:
            continue
        yield Advice(
            rule="forgotten",
            tone="bad",
            title=f"{record.source[:1].upper()}{record.source[1:]} got worse",
            evidence="The loss rose by {difference} nats per token, interval {low} to {high}, over {texts} texts.",
            action=f"{ways}, train fewer steps, or lower tune.learning_rate.",
            numbers={
                "difference": Number(value=record.difference, unit="loss_difference"),
                "low": Number(value=record.low, unit="loss_difference"),
                "high": Number(value=record.high, unit="loss_difference"),
                "texts": Number(value=record.texts, unit="count"),
            },
        )


def faulty_data(evidence: Evidence) -> Iterator[Advice]:
    """The check warned, and training went on."""
    findings = evidence.check.findings if evidence.check else ()
    counts = {severity: sum(found.severity == severity for found in findings) for severity in ("error", "warning")}
    if not any(counts.values()):
        return
    yield Advice(
        rule="faulty_data",
        tone="bad" if counts["error"] else "open",
        title="It was trained on data with known faults",
        evidence="Found by the check before training: {errors} of severity error, {warnings} of severity warning.",
        action="Mend the data as the findings below say, and train again.",
        numbers={
            "errors": Number(value=counts["error"], unit="count"),
            "warnings": Number(value=counts["warning"], unit="count"),
        },
    )


Rule = Callable[[Evidence], Iterator[Advice]]

RULES: tuple[Rule, ...] = (
    unfinished,
    not_finite,
    overfitting,
    forgotten,
    faulty_data,
    better_weights_earlier,
    validation_missing,
    still_falling,
    mostly_clipped,
    memory_nearly_full,
    slower,
    gpu_idle,
)


def machine_memory(evidence: Evidence) -> int | None:
    """What the peak is a part of: the machine's memory, or on CUDA what the check found free on the GPU.

    None where the run does not say which device it trained on, or nobody measured what that device has.
    """
    tuning, checked = evidence.manifest.tuning, evidence.memory_device
    device = tuning.device if tuning is not None else checked[0] if checked is not None else None
    if device is None:
        return None
    if not device.startswith("cuda"):
        return evidence.manifest.hardware.memory_bytes
    return checked[1] if checked is not None and checked[0] == "cuda" else None


def _validation(rows: Sequence[Row]) -> list[Point]:
    return [Point(step=row.step, value=row.validation_loss) for row in rows if row.validation_loss is not None]


def _last_rises(points: Sequence[Point]) -> int:
    """How many of the last points are each higher than the one before."""
    rises = 0
    for before, after in zip(reversed(points[:-1]), reversed(points[1:]), strict=True):
        if after.value <= before.value:
            break
        rises += 1
    return rises


def _loss_up_to(rows: Sequence[Row], step: int) -> float | None:
    """Mean of the last three logged training losses up to a step: a single one is noisy."""
    losses = [row.loss for row in rows if row.step <= step and row.loss is not None][-3:]
    return sum(losses) / len(losses) if losses else None
