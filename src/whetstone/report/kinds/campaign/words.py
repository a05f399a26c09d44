"""What the page, Markdown and the terminal say of a campaign in the same words."""

from whetstone.report import format as written
from whetstone.report.claims import Claims
from whetstone.report.kinds.campaign.schema import CampaignReport, Primary

__all__ = [
    "ALONE",
    "APART",
    "CHOSEN",
    "FOREST_CAPTION",
    "RECIPES",
    "TRAINING",
    "between",
    "names",
    "unmeasured_runs",
]

APART = (
    "Runs stand in one table only where they were judged on the same held-out examples, by the hash of their file, "
    "with the same primary metric. Nothing is averaged or ranked across tables: other examples may be easier, and "
    "another metric counts something else."
)

CHOSEN = (
    "No p value and no interval of a single run is corrected for the other runs (Holm's correction belongs to the "
    "gates of one rule). The best of several runs therefore looks better than it is: it was chosen for its luck, too. "
    "The interval of the best run below is at the Bonferroni level over all runs of its table, so that it may be "
    "believed although it was chosen."
)

ALONE = "One run: there was nothing to choose from."

RECIPES = (
    "Experiments that differ in nothing but tune.seed and their name, judged on the same examples. The interval counts "
    "the luck of training as well as that of the examples (a two-way random-effects table of seeds and groups of "
    "examples), so it speaks of the recipe and not of one trained model."
)

FOREST_CAPTION = "Tuned against base on the primary metric. Each panel has a scale of its own."

TRAINING = (
    "Seconds and memory are what each run recorded of its training; all other numbers are computed from its rows."
)


def between(claims: Claims, path: str, primary: Primary) -> str:
    """A difference with its interval."""
    difference = claims.text(f"{path}.difference", written.difference(primary.unit))
    if claims.value(f"{path}.interval") is None:
        return f"{difference} (interval {written.UNMEASURED})"
    low, high = (
        claims.text(f"{path}.interval.{name}", written.bare_difference(primary.unit)) for name in ("low", "high")
    )
    return f"{difference} ({low} to {high})"


def names(report: CampaignReport, runs: tuple[int, ...]) -> str:
    """The runs at these places."""
    return ", ".join(report.runs[run].name for run in runs)


def unmeasured_runs(report: CampaignReport) -> list[int]:
    """The places of the runs that have no difference."""
    return [index for index, run in enumerate(report.runs) if run.measured is None]
