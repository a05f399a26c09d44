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
    run = make_run(folder / "grammar-lora", n=160, suites=True)
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
    curves = {name: page.locator(f".losses .curve.{name}").is_visible() for name in ("narrow", "wide")}
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
        (".losses .curve.wide path[stroke='var(--accent)']", "stroke"),
        (".losses .curve.wide text", "fill"),
        (".track .bar", "stroke"),
        ("html", "backgroundColor"),
    ):
        assert colour_of(light, selector, name) != colour_of(dark, selector, name)
    assert colour_of(dark, ".losses .curve.wide path[stroke='var(--accent)']", "stroke") == colour_of(
        dark, "summary", "color"
    )


def shown(page: Page) -> list[str]:
    kinds: list[str] = page.eval_on_selector_all(
        ".change", "all => all.filter((change) => change.checkVisibility()).map((change) => change.dataset.kind)"
    )
    return kinds


def test_the_changes_are_folded_and_unfolded(browser: Browser, file: Path) -> None:
    page = Visit(browser, file).page
    total = page.locator(".change").count()
    assert len(shown(page)) == 8 < total
    page.get_by_role("button", name="Show all of these").click()
    assert len(shown(page)) == total


def test_without_scripts_every_change_is_there(browser: Browser, file: Path) -> None:
    page = browser.new_context(java_script_enabled=False, offline=True).new_page()
    page.goto(file.as_uri())
    assert page.locator(".change:visible").count() == page.locator(".change").count() > 8
    assert not page.get_by_role("searchbox").is_visible()


def listed(page: Page) -> int:
    return int(page.locator(".browser .count").inner_text().split()[0])


def test_the_browser_of_examples_filters_and_searches(browser: Browser, file: Path) -> None:
    visit = Visit(browser, file)
    page = visit.page
    assert listed(page) == 160 + 20 + 16
    page.locator("[name=suite]").select_option("texts")
    assert listed(page) == 16
    assert "nats/token" in page.locator(".detail").inner_text()
    page.locator("[name=suite]").select_option("held-out")
    page.locator("[name=state]").select_option("fixed")
    chips = page.locator(".row .chip").all_inner_texts()
    assert set(chips) == {"fixed"}
    assert listed(page) == int(page.locator("[data-claim='flips.fixed']").first.inner_text())
    page.locator("[name=to]").select_option("base")
    assert page.get_by_text("No listed example matches.").is_visible()
    page.locator("[name=state]").select_option("")
    page.locator("[name=category]").select_option("article")
    page.get_by_role("searchbox").fill("LIBRARY")
    assert 0 < listed(page) < 160
    page.get_by_role("searchbox").fill("no such words")
    assert page.get_by_text("No listed example matches.").is_visible()
    assert visit.complaints == []


def test_the_address_keeps_the_filter(browser: Browser, file: Path) -> None:
    visit = Visit(browser, file)
    page = visit.page
    page.locator("[name=state]").select_option("fixed")
    page.get_by_role("searchbox").fill("garden & more?")
    page.get_by_role("searchbox").fill("garden")
    page.locator(".rows").press("End")
    name, count, address = page.locator(".detail code").inner_text(), listed(page), page.url
    assert address.startswith(file.as_uri() + "#samples?")
    again = browser.new_context(offline=True).new_page()
    again.goto(address)
    assert again.get_by_role("searchbox").input_value() == "garden"
    assert listed(again) == count > 1
    assert again.locator(".detail code").inner_text() == name
    assert visit.complaints == []


def test_the_browser_of_examples_is_worked_by_keys(browser: Browser, file: Path) -> None:
    page = Visit(browser, file).page
    rows = page.locator(".rows")
    rows.focus()
    first = page.locator(".detail code").inner_text()
    page.keyboard.press("ArrowDown")
    second = page.locator(".detail code").inner_text()
    assert second != first
    chosen = page.locator(".row[aria-selected='true']")
    assert chosen.get_attribute("id") == rows.get_attribute("aria-activedescendant")
    assert (chosen.get_attribute("aria-posinset"), chosen.get_attribute("aria-setsize")) == ("2", "196")
    page.keyboard.press("End")
    page.wait_for_function("document.querySelector('.row[aria-selected=true]')?.ariaPosInSet === '196'")
    page.keyboard.press("Home")
    page.wait_for_function("document.querySelector('.row[aria-selected=true]')?.ariaPosInSet === '1'")
    assert page.locator(".detail code").inner_text() == first


def test_a_link_to_a_suite_unfolds_it(browser: Browser, file: Path) -> None:
    page = Visit(browser, file).page
    assert not page.locator("#suite-texts table").first.is_visible()
    page.get_by_role("link", name="texts").click()
    page.locator("#suite-texts table").first.wait_for(state="visible")


def test_hostile_answers_stay_text_in_the_browser_of_examples(browser: Browser, file: Path) -> None:
    visit = Visit(browser, file)
    page = visit.page
    page.get_by_role("searchbox").fill("<script>document.title")
    assert listed(page) > 0
    assert "<script>document.title='broken'</script>" in page.locator(".detail").inner_text()
    assert page.locator(".browser script").count() == 0
    assert page.title() != "broken"
    assert visit.complaints == []


def test_ten_thousand_examples_are_few_elements_and_quick(browser: Browser, make_run: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "large", n=10_400, arms=("base", "tuned"), tuning=False)
    summary = summarise(run)
    assert (summary.listing.listed, summary.listing.total) == (10_000, 10_400)
    path = tmp_path / "index.html"
    path.write_text(render_page(summary), encoding="utf-8")
    page = Visit(browser, path).page
    assert listed(page) == 10_000
    assert page.locator(".row").count() < 40
    busy_ms = """async (act) => {
        const rows = document.querySelector(".rows"), search = document.querySelector(".browser [type=search]");
        const began = performance.now();
        if (act === "scroll") rows.scrollTop = rows.scrollHeight;
        else { search.value = act; search.dispatchEvent(new Event("input", { bubbles: true })); }
        await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
        return performance.now() - began;
    }"""
    for act in ("the market", "", "scroll"):
        taken = page.evaluate(busy_ms, act)
        print(f"{act or 'everything'}: {taken:.0f} ms")  # noqa: T201
        assert taken < 2_000
    assert page.locator(".row[aria-posinset='10000']").count() == 1
    assert page.locator(".row").count() < 40


def test_it_prints_with_everything_unfolded(browser: Browser, file: Path) -> None:
    page = Visit(browser, file, scheme="dark").page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert len(shown(page)) == page.locator(".change").count()
    assert page.locator("details:not([open])").count() == 0
    assert colour_of(page, "html", "backgroundColor") == "rgb(253, 253, 251)"
    assert not page.locator("nav").is_visible()
