"""``whet report``: render the reports of a run again, from its rows."""

from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from whetstone.cli.common import JsonOption, RunsOption, print_json, resolve_run, show_summary, status
from whetstone.errors import UserError

if TYPE_CHECKING:
    from whetstone.report.kinds.service.schema import Objective
    from whetstone.run import Run

__all__ = ["Kind", "report"]


class Kind(Enum):
    """What a report is about."""

    DECISION = "decision"
    TRAINING = "training"
    SERVICE = "service"
    CAMPAIGN = "campaign"


def report(
    run: Annotated[
        list[str],
        typer.Argument(
            help="A run, by name or folder; for --kind service also a requests.jsonl, for --kind campaign several runs."
        ),
    ],
    runs: RunsOption = Path("runs"),
    kind: Annotated[Kind, typer.Option("--kind", help="What it is about.")] = Kind.DECISION,
    pdf: Annotated[bool, typer.Option("--pdf", help="Print the page to report.pdf, too; needs Chromium.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="The folder of a service or campaign report.")] = None,
    slo_ttft: Annotated[
        float | None, typer.Option("--slo-ttft", min=0, help="Service: seconds to the first token that are good.")
    ] = None,
    slo_tpot: Annotated[
        float | None, typer.Option("--slo-tpot", min=0, help="Service: seconds for each further token that are good.")
    ] = None,
    slo_e2e: Annotated[
        float | None, typer.Option("--slo-e2e", min=0, help="Service: seconds to the last token that are good.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write index.html, report.md and report.json again from the rows alone.

    Example: whet report demo
    Example: whet report demo --kind training --pdf
    Example: whet report requests.jsonl --kind service --slo-ttft 0.5 --slo-tpot 0.05
    Example: whet report rank-8 rank-16 rank-16-seed-2 --kind campaign --out campaign-report
    """
    if pdf:
        from whetstone.report.pdf import find_chromium

        # Said before anything is computed.
        find_chromium()
    if kind is not Kind.SERVICE and (slo_ttft, slo_tpot, slo_e2e) != (None, None, None):
        raise UserError(f"--slo-ttft, --slo-tpot and --slo-e2e are for --kind service; leave them out for {kind.value}")
    if kind in (Kind.DECISION, Kind.TRAINING) and out is not None:
        raise UserError(f"--out is for --kind service and campaign; leave it out for {kind.value}")
    if kind is not Kind.CAMPAIGN and len(run) > 1:
        raise UserError(f"{len(run)} runs given, and --kind {kind.value} is of one; give --kind campaign for several")
    match kind:
        case Kind.DECISION:
            _decision(resolve_run(run[0], runs), pdf=pdf, as_json=as_json)
        case Kind.TRAINING:
            _training(resolve_run(run[0], runs), pdf=pdf, as_json=as_json)
        case Kind.SERVICE:
            _service(run[0], runs, out, _objective(slo_ttft, slo_tpot, slo_e2e), pdf=pdf, as_json=as_json)
        case Kind.CAMPAIGN:
            found = [resolve_run(one, runs) for one in run]
            _campaign(found, out or Path("campaign-report"), pdf=pdf, as_json=as_json)


def _decision(found: "Run", *, pdf: bool, as_json: bool) -> None:
    from whetstone.report.write import write_report

    with found.lock(), status.status("writing the report"):
        summary = write_report(found)
        _print(found.report, wanted=pdf)
    show_summary(summary, found, as_json=as_json)


def _training(found: "Run", *, pdf: bool, as_json: bool) -> None:
    from whetstone.report.kinds.training.terminal import print_training
    from whetstone.report.kinds.training.write import write_training_report

    folder = found.report / "training"
    with found.lock(), status.status("writing the report"):
        written = write_training_report(found, folder)
        _print(folder, wanted=pdf)
    if as_json:
        print_json(written.model_dump(mode="json"))
    else:
        print_training(Console(), written, folder / "index.html")


def _service(
    what: str, runs: Path, out: Path | None, objective: "Objective | None", *, pdf: bool, as_json: bool
) -> None:
    from whetstone.report.kinds.service.terminal import print_service
    from whetstone.report.kinds.service.write import write_service_report

    requests = Path(what)
    lock: AbstractContextManager[None] = nullcontext()
    if requests.is_file():
        title, folder = requests.stem, requests.with_name(f"{requests.stem}-report")
    elif requests.suffix == ".jsonl":
        raise UserError(f"{requests}: no such file; give the requests.jsonl that was measured")
    else:
        found = resolve_run(what, runs)
        requests, title, folder, lock = found.requests_path, found.name, found.report / "service", found.lock()
    folder = out or folder
    with lock, status.status("writing the report"):
        written = write_service_report(requests, folder, title, objective)
        _print(folder, wanted=pdf)
    if as_json:
        print_json(written.model_dump(mode="json"))
    else:
        print_service(Console(), written, folder / "index.html")


def _campaign(found: "list[Run]", folder: Path, *, pdf: bool, as_json: bool) -> None:
    from whetstone.report.kinds.campaign.terminal import print_campaign
    from whetstone.report.kinds.campaign.write import write_campaign_report

    with status.status("writing the report"):
        written = write_campaign_report(found, folder)
        _print(folder, wanted=pdf)
    if as_json:
        print_json(written.model_dump(mode="json"))
    else:
        print_campaign(Console(), written, folder / "index.html")


def _objective(ttft_s: float | None, tpot_s: float | None, e2e_s: float | None) -> "Objective | None":
    from whetstone.report.kinds.service.schema import Objective

    if (ttft_s, tpot_s, e2e_s) == (None, None, None):
        return None
    return Objective(ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=e2e_s)


def _print(folder: Path, *, wanted: bool) -> None:
    if wanted:
        from whetstone.report.pdf import print_pdf

        print_pdf(folder / "index.html")
