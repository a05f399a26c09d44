"""The report of a training as GitHub Markdown, with the charts as files beside it."""

from whetstone.report import format as written
from whetstone.report.claims import Claims
from whetstone.report.kinds.markdown import advice_list, fenced, prose, table
from whetstone.report.kinds.training.charts import CHARTS
from whetstone.report.kinds.training.page import SENSOR_WRITERS
from whetstone.report.kinds.training.schema import TrainingReport, WatchedPrompt
from whetstone.report.training import RETENTION_CAPTION

__all__ = ["markdown_training"]


def markdown_training(report: TrainingReport, charts: dict[str, str | None]) -> str:
    """Renders the report; ``charts`` are expected beside it, those that are None do not exist."""
    claims = Claims(report.model_dump(mode="json"))
    sections = [
        _head(report, claims),
        _advice(report, claims),
        _charts(claims, charts),
        _retention(report, claims),
        _answers(report),
        _data(report, claims),
        _settings(report, claims),
        _facts(report),
    ]
    return "\n\n".join(sections) + "\n"


def _head(report: TrainingReport, claims: Claims) -> str:
    rows = [
        ["Training loss", _at(claims, "loss.first"), _at(claims, "loss.lowest"), _at(claims, "loss.last")],
        ["Validation loss", "", _at(claims, "validation.best"), _at(claims, "validation.last")],
    ]
    took = [
        ["Steps", f"{_count(claims, 'progress.step')} of {_count(claims, 'progress.steps')}"],
        ["Duration", claims.text("progress.duration_s", written.duration)],
        ["Tokens learned from", _count(claims, "progress.loss_tokens")],
        *(
            [f"of them {one.origin}", f"{_count(claims, f'origins.{i}.tokens')} ({written.share(one.share)})"]
            for i, one in enumerate(report.origins or ())
        ),
        ["Tokens per second, median", claims.text("progress.tokens_per_s", written.rate)],
        ["Peak memory", claims.text("progress.peak_memory_bytes", written.byte_size)],
        ["Memory of the machine", claims.text("progress.machine_memory_bytes", written.byte_size)],
        ["Gradients clipped", claims.text("clipping.share", written.share)],
    ]
    return (
        f"# Training: {prose(report.run.name)}\n\n{table(['', 'First', 'Lowest', 'Last'], rows)}\n\n"
        f"{table(['Training', ''], took)}"
    )


def _at(claims: Claims, path: str) -> str:
    if claims.value(path) is None:
        return written.UNMEASURED
    return f"{claims.text(f'{path}.value', written.decimal)} at step {_count(claims, f'{path}.step')}"


def _count(claims: Claims, path: str) -> str:
    return claims.text(path, written.count)


def _advice(report: TrainingReport, claims: Claims) -> str:
    said = advice_list(report.advice) or "No rule found anything to change."
    if not report.rows:
        said = f"What the rules look at: {written.UNMEASURED}." if not report.advice else said
    events = [
        [_count(claims, f"guard.events.{i}.step"), event.kind, event.text]
        for i, event in enumerate(report.guard.events or ())
    ]
    seen = table(["Step", "What", "In words"], events) if events else "Events in the logged rows and notes: none."
    if report.guard.events is None:
        seen = f"Events in the logged rows: {written.UNMEASURED}."
    return f"## What to do\n\n{said}\n\n### Guard\n\n{seen}"


def _charts(claims: Claims, charts: dict[str, str | None]) -> str:
    titles = {"loss": "Loss by optimiser step", **{chart.name: chart.title for chart in CHARTS}}
    drawn = [f"![{title}]({name}.svg)" for name, title in titles.items() if charts[name] is not None]
    missing = [title for name, title in titles.items() if charts[name] is None]
    said = [f"{title}: {written.UNMEASURED}." for title in missing]
    sensors = [
        [title, _count(claims, f"readings.{name}.n")]
        + [claims.text(f"readings.{name}.{what}", write) for what in ("median", "maximum", "last")]
        for name, (title, write) in SENSOR_WRITERS.items()
    ]
    parts = [*drawn, "\n".join(f"- {line}" for line in said)] if said else drawn
    readings = table(["Sensor", "Readings", "Median", "Highest", "Last"], sensors)
    return "\n\n".join(["## Over time", *parts, readings])


def _retention(report: TrainingReport, claims: Claims) -> str:
    if not report.retention:
        return f"## Retention\n\nWhat was forgotten: {written.UNMEASURED}."
    rows = []
    for index, record in enumerate(report.retention):
        path = f"retention.{index}"
        low, high = (claims.text(f"{path}.{end}", written.decimal_difference) for end in ("low", "high"))
        rows.append(
            [
                record.source,
                _count(claims, f"{path}.texts"),
                claims.text(f"{path}.nll_before", written.decimal),
                claims.text(f"{path}.nll_after", written.decimal),
                claims.text(f"{path}.difference", written.decimal_difference),
                low if record.low is None else f"{low} to {high}",
            ]
        )
    head = ["Source", "Texts", "Before", "After", "Difference", "Interval"]
    return f"## Retention\n\n{RETENTION_CAPTION}\n\n{table(head, rows)}"


def _answers(report: TrainingReport) -> str:
    title = "## What it said while it learned"
    if report.answers is None:
        return f"{title}\n\nSample answers: {written.UNMEASURED}."
    return "\n\n".join([title, *(fenced(_prompt(prompt)) for prompt in report.answers.prompts)])


def _prompt(prompt: WatchedPrompt) -> str:
    lines = [("prompt", prompt.prompt), ("reference", prompt.reference)]
    lines += [
        (
            f"step {written.count(answer.step)}"
            + (f" to {written.count(answer.until)}" if answer.until != answer.step else ""),
            answer.text,
        )
        for answer in prompt.answers
    ]
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {written.one_line(text) or '(empty)'}" for label, text in lines)


def _data(report: TrainingReport, claims: Claims) -> str:
    title = "## What it learned from"
    if report.check is None:
        return f"{title}\n\nWhat the check found before training: {written.UNMEASURED}."
    columns = ("examples", "groups", "rows", "tokens", "loss_tokens", "median_tokens", "longest_tokens", "too_long")
    parts = [
        [part.part, *(_count(claims, f"check.parts.{i}.{column}") for column in columns)]
        for i, part in enumerate(report.check.parts)
    ]
    head = ["Part", "Examples", "Groups", "Rows", "Tokens", "Learned from", "Median row", "Longest row", "Too long"]
    findings = [
        [f"**{found.severity}**", found.code, written.sentence(found.message), written.sentence(found.mend)]
        for found in report.check.findings
    ]
    found = table(["", "Finding", "What", "Mend"], findings) if findings else "Findings: none."
    return f"{title}\n\n{table(head, parts)}\n\n{found}"


def _settings(report: TrainingReport, claims: Claims) -> str:
    rows = [[one.name, one.asked, claims.text(f"settings.{i}.used")] for i, one in enumerate(report.settings)]
    notes = "\n".join(f"- {prose(note)}" for note in report.notes) or "Notes of the run: none."
    return f"## Settings, as asked and as used\n\n{table(['Setting', 'Asked', 'Used'], rows)}\n\n{notes}"


def _facts(report: TrainingReport) -> str:
    run = report.run
    base = written.UNMEASURED if run.base is None else f"{run.base.origin} `{run.base.sha256}`"
    rows = [
        ["Run", f"{run.name}, begun {run.created_at}"],
        ["Code", f"Whetstone {run.whetstone_version}, commit {run.git_commit or written.UNMEASURED}"],
        ["Experiment", f"`{run.experiment_hash}`"],
        ["Base weights", base],
        ["Hardware", f"{run.hardware.processor}, {run.hardware.cores} cores, {run.hardware.system}"],
        ["Packages", ", ".join(f"{name} {version}" for name, version in run.packages.items())],
    ]
    return f"## What this rests on\n\n{table(['', ''], rows)}"
