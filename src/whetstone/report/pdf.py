"""A page as PDF, printed by a Chromium that is on the machine.

Notable: what is printed is a copy of the page without its script and with everything unfolded, so the paper does not
depend on what a browser runs before it prints. Chromium gets a profile folder of its own that is thrown away, no
network (every name resolves to nothing), and so many seconds; its whole process group ends with the call.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from whetstone.errors import UserError
from whetstone.files import write_atomic

__all__ = ["find_chromium", "print_pdf"]

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-pdf-header-footer",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    # Nothing to wait for: the page has no script and loads nothing.
    "--virtual-time-budget=1000",
)
_MOST_S = 60.0


def find_chromium() -> str:
    """The path of a Chromium.

    Raises:
        UserError: There is none.
    """
    for name in _BROWSERS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise UserError(
        f"--pdf: no Chromium on this machine ({', '.join(_BROWSERS)}); install one ('apt-get install chromium'), or "
        "print index.html from any browser"
    )


def print_pdf(page: Path, *, timeout_s: float = _MOST_S) -> Path:
    """Prints ``index.html`` to ``report.pdf`` beside it; the file appears whole or not at all.

    Args:
        page: The page.
        timeout_s: The most that Chromium may take.

    Raises:
        UserError: There is no Chromium, or it did not print.
    """
    browser, target = find_chromium(), page.with_name("report.pdf")
    with tempfile.TemporaryDirectory(prefix="whet-pdf-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        copy, printed = folder / "page.html", folder / "page.pdf"
        copy.write_text(_for_paper(page.read_text(encoding="utf-8")), encoding="utf-8")
        said = _run(
            [
                browser,
                *_ARGUMENTS,
                # Chromium refuses its sandbox to root, and to nobody else.
                *(["--no-sandbox"] if os.geteuid() == 0 else []),
                f"--user-data-dir={folder / 'profile'}",
                f"--print-to-pdf={printed}",
                copy.as_uri(),
            ],
            folder,
            timeout_s,
        )
        content = printed.read_bytes() if printed.exists() else b""
        if not content.startswith(b"%PDF-") or b"%%EOF" not in content[-32:]:
            raise UserError(
                f"--pdf: {browser} printed nothing ({said or 'and said nothing'}); print {page} from a browser instead"
            )
        write_atomic(target, content)
    return target


def _for_paper(html: str) -> str:
    """Takes the script away and opens what is folded."""
    without = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    return without.replace("<details>", "<details open>")


def _run(command: list[str], home: Path, timeout_s: float) -> str:
    """Runs a program in a process group that is ended with it; gives the last line that it said.

    Raises:
        UserError: It took too long, or could not be started.
    """
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise UserError(f"--pdf: {command[0]} does not start ({error.strerror}); install Chromium anew") from None
    try:
        _, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"--pdf: {command[0]} did not print within {timeout_s:g} s and was ended; print the page from a browser"
        ) from None
    finally:
        # Its helpers live in the same group, and some outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = errors.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
