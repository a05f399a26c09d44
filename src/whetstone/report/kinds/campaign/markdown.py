"""The report of a campaign as GitHub Markdown, with the forest plot as a file beside it."""

from collections.abc import Iterator

from whetstone.report import format as written
from whetstone.report.claims import Claims
from whetstone.report.kinds.campaign import words
from whetstone.report.kinds.campaign.schema import CampaignReport, CampaignRun
from whetstone.report.kinds.markdown import advice_list, prose, table

__all__ = ["markdown_campaign"]


def markdown_campaign(report: CampaignReport, charts: dict[str, str | None]) -> str:
    """Renders the report.

    Args:
        report: What it says.
        charts: By the names of their files; those that are None do not exist.
    """
    claims = Claims(report.model_dump(mode="json"))
    forest = f"Differences: {written.UNMEASURED}."
    if charts["forest"] is not None:
        forest = f"![{words.FOREST_CAPTION}](forest.svg)"
    sections = [
        f"# Campaign of {len(report.runs)} runs",
        f"{words.APART} {words.TRAINING}",
        *_groups(report, claims),
        *_unmeasured(report, claims),
        f"## Differences\n\n{forest}",
        f"## What differs between the experiments\n\n{_settings(report)}",
        f"## The best run\n\n{words.CHOSEN}\n\n{_best(report, claims)}",
        f"## Recipes over seeds\n\n{words.RECIPES}\n\n{_recipes(report, claims)}",
        f"## What to do next\n\n{advice_list(report.advice) or 'No rule advises anything.'}",
    ]
    return "\n\n".join(sections) + "\n"


def _groups(report: CampaignReport, claims: Claims) -> Iterator[str]:
    head = ["Run", "Base", "Method", "Training", "Peak memory", "Base to tuned", "Difference", "n", "Verdict"]
    for group in report.groups:
        rows = []
        for index in group.runs:
            path = f"runs.{index}"
            score = written.score(group.primary.unit)
            before, after = (
                claims.text(f"{path}.measured.effect.{arm}_mean", score) for arm in ("baseline", "candidate")
            )
            found = report.runs[index].measured
            early = " (stopped early)" if found is not None and found.stopped_early else ""
            rows.append(
                [
                    *_facts(report.runs[index], path, claims),
                    f"{before} to {after}",
                    words.between(claims, f"{path}.measured.effect", group.primary) + early,
                    claims.text(f"{path}.measured.effect.n", written.count),
                    claims.text(f"{path}.measured.verdict"),
                ]
            )
        yield f"## {prose(group.primary.title)}, examples `{group.data_hash}`\n\n{table(head, rows)}"


def _facts(run: CampaignRun, path: str, claims: Claims) -> list[str]:
    return [
        run.name,
        claims.text(f"{path}.base"),
        claims.text(f"{path}.method"),
        claims.text(f"{path}.training.duration_s", written.duration),
        claims.text(f"{path}.training.peak_memory_bytes", written.byte_size),
    ]


def _unmeasured(report: CampaignReport, claims: Claims) -> Iterator[str]:
    missing = words.unmeasured_runs(report)
    if missing:
        rows = [
            [
                *_facts(report.runs[index], f"runs.{index}", claims),
                f"{written.UNMEASURED}: {claims.text(f'runs.{index}.reason')}",
            ]
            for index in missing
        ]
        head = ["Run", "Base", "Method", "Training", "Peak memory", "Difference"]
        yield f"## Not measured\n\n{table(head, rows)}"


def _settings(report: CampaignReport) -> str:
    if not report.settings:
        return "Nothing in the tune, model and data sections."
    rows = [
        [one.key, *(written.UNMEASURED if value is None else value for value in one.values)] for one in report.settings
    ]
    return table(["Key", *(run.name for run in report.runs)], rows)


def _best(report: CampaignReport, claims: Claims) -> str:
    if not report.groups:
        return f"Best run: {written.UNMEASURED}."
    return "\n".join(
        f"- {prose(group.primary.title)}, examples `{group.data_hash}`: {_best_of(report, index, claims)}"
        for index, group in enumerate(report.groups)
    )


def _best_of(report: CampaignReport, index: int, claims: Claims) -> str:
    group, path = report.groups[index], f"groups.{index}.best"
    if group.best is None:
        return words.ALONE if len(group.runs) == 1 else f"{written.UNMEASURED}, every run stopped early."
    level = claims.text(f"{path}.interval.level", written.level)
    return (
        f"**{prose(report.runs[group.best.run].name)}** of {group.best.runs} runs: "
        f"{words.between(claims, path, group.primary)}, a {level} interval."
    )


def _recipes(report: CampaignReport, claims: Claims) -> str:
    if not report.recipes:
        return f"{written.UNMEASURED.capitalize()}: no two runs are of one recipe with two seeds."
    head = ["Runs", "Seeds", "Difference", "p", "Variance due to seeds", "Spread of seeds", "n"]
    rows = []
    for index, recipe in enumerate(report.recipes):
        path, primary = f"recipes.{index}", report.groups[recipe.group].primary
        left_out = f"; seed repeated: {words.names(report, recipe.repeated)}" if recipe.repeated else ""
        rows.append(
            [
                words.names(report, recipe.runs) + left_out,
                claims.text(f"{path}.seed_count", written.count),
                words.between(claims, path, primary),
                claims.text(f"{path}.p_value", written.bare_p),
                claims.text(f"{path}.seed_share", written.share),
                claims.text(f"{path}.spread", written.difference(primary.unit)).removeprefix("+"),
                claims.text(f"{path}.n", written.count),
            ]
        )
    return table(head, rows)
