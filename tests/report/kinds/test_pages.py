"""The pages in a real browser: light and dark, on a phone, on a desk and on paper, without a network."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from whetstone.report.kinds.service.schema import Objective
from whetstone.report.kinds.service.write import write_service_report
from whetstone.report.kinds.training.write import write_training_report
from whetstone.report.pdf import print_pdf
from whetstone.run import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run")
KINDS = ("training", "service")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def pages(
    make_training: Callable[[Path], Run], requests: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """With a prompt, a note and a model that are one long word each."""
    folder = tmp_path_factory.mktemp("pages")
    run = make_training(folder / "trained")
    run.watch_path.write_text(run.watch_path.read_text().replace("home", "h" * 500))
    run.update(notes=("n" * 300,))
    write_training_report(run, folder / "training")
    rows = [row | {"model": "m" * 200} if row["arrival"]["process"] == "poisson" else row for row in requests]
    (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_service_report(folder / "requests.jsonl", folder / "service", "requests", Objective(ttft_s=0.2, tpot_s=0.02))
    return {kind: folder / kind / "index.html" for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 390), ("light", 1280), ("dark", 1280)])
def test_it_opens_whole(browser: Browser, pages: dict[str, Path], kind: str, scheme: Any, width: int) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True)
    page, requests, complaints = context.new_page(), list[str](), list[str]()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(pages[kind].as_uri())
    assert (requests, complaints) == ([pages[kind].as_uri()], [])
    paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert paper == {"light": "rgb(253, 253, 251)", "dark": "rgb(19, 21, 25)"}[scheme]
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    hidden = page.evaluate(
        """[...document.querySelectorAll(".claim")]
        .filter((claim) => !claim.checkVisibility() || claim.getClientRects().length === 0)
        .map((claim) => claim.dataset.claim)"""
    )
    assert hidden == []
    cut = page.evaluate(
        """[...document.querySelectorAll(".chart svg, .curve svg")].filter((svg) => svg.checkVisibility())
        .filter((svg) => svg.getBoundingClientRect().right > document.documentElement.clientWidth).length"""
    )
    assert cut == 0
    context.close()


@pytest.mark.parametrize("kind", KINDS)
def test_on_paper_it_is_light_and_tables_stay_whole(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    # The width of the print area of A4 between the margins of the style.
    style = "getComputedStyle(document.querySelector('{}')).{}".format
    context = browser.new_context(color_scheme="dark", viewport={"width": 688, "height": 1000})
    page = context.new_page()
    page.goto(pages[kind].as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(style("html", "backgroundColor")) == "rgb(253, 253, 251)"
    assert page.evaluate(style(".table:not(.long)", "breakInside")) == "avoid"
    assert page.evaluate(style("thead", "display")) == "table-header-group"
    assert not page.locator("nav").is_visible()
    assert page.locator(".curve.narrow").count() == 0 or not page.locator(".curve.narrow").first.is_visible()
    wide = page.evaluate(
        """[...document.querySelectorAll("table")].filter((table) => table.checkVisibility())
        .map((table) => table.getBoundingClientRect().right)"""
    )
    assert max(wide) <= 688
    context.close()


def test_it_prints_to_pdf(pages: dict[str, Path]) -> None:
    content = print_pdf(pages["training"]).read_bytes()
    assert content.startswith(b"%PDF-")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", content)) <= 20
    assert 50_000 < len(content) < 5_000_000
