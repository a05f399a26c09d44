"""The page in a real browser: light and dark, on a desk and on a phone, without a network."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from whetstone.report.page import render_page
from whetstone.report.summary import summarise

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def file(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    run = make_run(folder / "grammar-lora", n=160)
    tuned = run.samples / "tuned.jsonl"
    long_word, script = "w" * 900, "<script>document.title='broken'</script>"
    rows = tuned.read_text().replace("The teacher", long_word).replace("My brother", script)
    tuned.write_text(rows)
    path = folder / "index.html"
    path.write_text(render_page(summarise(run)), encoding="utf-8")
    return path


class Visit:
    """A page with everything that it asked for and complained about."""

    def __init__(self, browser: Browser, file: Path, *, scheme: str = "light", width: int = 1280, height: int = 900):
        self.requests: list[str] = []
        self.complaints: list[str] = []
        context = browser.new_context(
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": width, "height": height},
            offline=True,
        )
        self.page: Page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)], ids=["phone", "desk"])
def test_it_opens_whole(browser: Browser, file: Path, tmp_path: Path, scheme: str, width: int, height: int) -> None:
    visit = Visit(browser, file, scheme=scheme, width=width, height=height)
    page = visit.page
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
    assert visit.complaints == []
    assert visit.requests == [file.as_uri()]
    assert page.title() != "broken"
    assert page.evaluate("document.documentElement.scrollWidth") == width
    curves = {name: page.locator(f".curve.{name}").is_visible() for name in ("narrow", "wide")}
    assert curves == {"narrow": width == 390, "wide": width == 1280}
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    hidden = page.evaluate(
        """[...document.querySelectorAll(".claim")]
        .filter((claim) => !claim.checkVisibility() || claim.getClientRects().length === 0)
        .map((claim) => claim.dataset.claim)"""
    )
    assert hidden == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


def colour_of(page: Page, selector: str, name: str) -> str:
    found: str = page.evaluate(f"getComputedStyle(document.querySelector({selector!r})).{name}")
    return found


def test_the_charts_follow_the_mode(browser: Browser, file: Path) -> None:
    light, dark = (Visit(browser, file, scheme=scheme).page for scheme in ("light", "dark"))
    for selector, name in (
        (".curve.wide path[stroke='var(--accent)']", "stroke"),
        (".curve.wide text", "fill"),
        (".track .bar", "stroke"),
        ("html", "backgroundColor"),
    ):
        assert colour_of(light, selector, name) != colour_of(dark, selector, name)
    assert colour_of(dark, ".curve.wide path[stroke='var(--accent)']", "stroke") == colour_of(dark, "summary", "color")


def shown(page: Page) -> list[str]:
    kinds: list[str] = page.eval_on_selector_all(
        ".change", "all => all.filter((change) => change.checkVisibility()).map((change) => change.dataset.kind)"
    )
    return kinds


def test_samples_are_filtered_searched_and_unfolded(browser: Browser, file: Path) -> None:
    page = Visit(browser, file).page
    total = page.locator(".change").count()
    assert len(shown(page)) == 8 < total
    page.get_by_role("button", name="Show all listed samples").click()
    assert len(shown(page)) == total
    for name, kind in (("Fixed", "fixed"), ("Broken", "broken")):
        page.get_by_role("button", name=name, exact=True).click()
        assert set(shown(page)) == {kind}
        assert page.get_by_role("button", name=name, exact=True).get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("searchbox").fill("LIBRARY")
    assert 0 < len(shown(page)) < total
    page.get_by_role("searchbox").fill("no such words")
    assert shown(page) == []
    assert page.get_by_text("No listed sample matches.").is_visible()


def test_without_scripts_every_sample_is_there(browser: Browser, file: Path) -> None:
    page = browser.new_context(java_script_enabled=False, offline=True).new_page()
    page.goto(file.as_uri())
    assert page.locator(".change:visible").count() == page.locator(".change").count() > 8
    assert not page.get_by_role("searchbox").is_visible()


def test_it_prints_with_everything_unfolded(browser: Browser, file: Path) -> None:
    page = Visit(browser, file, scheme="dark").page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert len(shown(page)) == page.locator(".change").count()
    assert page.locator("details:not([open])").count() == 0
    assert colour_of(page, "html", "backgroundColor") == "rgb(253, 253, 251)"
    assert not page.locator("nav").is_visible()
