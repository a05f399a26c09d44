"""Pages on paper, with a real Chromium and with programs that pretend to be one."""

import os
import re
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from whetstone.errors import UserError
from whetstone.report.pdf import find_chromium, print_pdf

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

PAGE = """<!doctype html><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src http:">
<style>
:root { --paper: #fdfdfb; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #131519; } }
body { background: var(--paper); }
div { height: 240mm; }
@page { size: A4; }
</style>
<body><div>one</div><details><summary>more</summary><div>two</div></details>
<img src="http://example.com/x.png"><script>document.body.textContent = ''</script>"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "index.html"
    path.write_text(PAGE, encoding="utf-8")
    return path


def pages(content: bytes) -> int:
    """Counts the page objects, which Chromium writes uncompressed."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", content))


@needs_chromium
def test_it_is_printed_light_without_scripts_and_unfolded(page: Path) -> None:
    target = print_pdf(page)
    content = target.read_bytes()
    assert target == page.with_name("report.pdf")
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    # The script would have emptied the page, and the second page is in a part that is folded on screen.
    assert pages(content) >= 2
    assert sorted(path.name for path in page.parent.iterdir()) == ["index.html", "report.pdf"]
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, flags=re.DOTALL)
    drawn = b"".join(inflate(stream) for stream in streams)
    fills = {tuple(round(255 * float(part)) for part in found) for found in re.findall(COLOUR, drawn)}
    assert (253, 253, 251) in fills
    assert (19, 21, 25) not in fills


COLOUR = rb"([\d.]+) ([\d.]+) ([\d.]+) rg"


def inflate(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def program(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "chromium").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "chromium").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return program


def test_without_a_chromium_the_mend_is_said(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"--pdf: no Chromium .*chromium-browser, google-chrome.*apt-get install"):
        print_pdf(page)
    assert not page.with_name("report.pdf").exists()


def test_the_first_that_is_there_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("google-chrome", "chromium-browser"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert find_chromium() == str(tmp_path / "chromium-browser")


def test_one_that_hangs_is_ended_with_its_children(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = tmp_path / "alive"
    pretend(tmp_path, monkeypatch)(f"(sleep 2; touch {alive}) & sleep 30")
    with pytest.raises(UserError, match=r"did not print within 0.2 s and was ended"):
        print_pdf(page, timeout_s=0.2)
    assert not page.with_name("report.pdf").exists()
    time.sleep(2.2)
    assert not alive.exists()


def test_one_that_prints_nothing_says_why(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch)("echo 'no space left' >&2; exit 1")
    with pytest.raises(UserError, match=r"printed nothing \(no space left\)"):
        print_pdf(page)


def test_it_has_a_profile_of_its_own_no_network_and_its_sandbox(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    pretend(tmp_path, monkeypatch)(f'printf "%s\\n" "$HOME" "$@" > {seen}; exit 1')
    for user, sandboxed in ((0, False), (1000, True)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        with pytest.raises(UserError, match="printed nothing"):
            print_pdf(page)
        home, *arguments = seen.read_text().splitlines()
        assert ("--no-sandbox" not in arguments) == sandboxed
        assert f"--user-data-dir={home}/profile" in arguments
        assert "--host-resolver-rules=MAP * ~NOTFOUND" in arguments
        assert not Path(home).exists()
