"""Numbers are shown by their path in ``report.json``, so that what is shown and what is stored cannot differ."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from whetstone.judge_section import HELD_OUT
from whetstone.report import format as written
from whetstone.report.format import UNMEASURED

if TYPE_CHECKING:
    from whetstone.stats.comparison import Comparison

__all__ = ["Claims", "suite_path", "suite_title", "unguarded_loss"]


class Claims:
    """Looks values up in a report and writes them; where there is none it says that nothing was measured.

    Paths are the keys from the root joined by dots: ``arms.tuned.exact_match.interval.low``, ``gates.2.p_adjusted``.
    """

    def __init__(self, report: dict[str, Any]) -> None:
        self._report = report

    def value(self, path: str) -> Any:
        """The value at a path; None when it, or anything above it, was not measured.

        Raises:
            KeyError: Reports have no such path.
        """
        found: Any = self._report
        for key in path.split("."):
            if found is None:
                return None
            found = found[int(key)] if isinstance(found, list) else found[key]
        return found

    def text(self, path: str, write: Callable[[Any], str] = str) -> str:
        """The value as people read it."""
        value = self.value(path)
        return UNMEASURED if value is None else write(value)

    def html(self, path: str, write: Callable[[Any], str] = str) -> Markup:
        """As :meth:`text`, tagged with the path and the unrounded value, so that anybody can recompute it."""
        value = self.value(path)
        if value is None:
            return Markup('<span class="unmeasured">{}</span>').format(UNMEASURED)
        return Markup('<data class="claim" value="{}" data-claim="{}">{}</data>').format(value, path, write(value))


def suite_path(suite: str) -> str:
    """What stands before the paths of a suite; those of the held-out examples begin at the root."""
    return "" if suite == HELD_OUT else f"suites.{suite}."


def suite_title(suite: str, title: str) -> str:
    """A metric's title, after the suite it was scored on."""
    return title if suite == HELD_OUT else f"{suite}: {title}"


def unguarded_loss(claims: Claims, suite: str, found: "Comparison") -> str:
    """What Markdown and the terminal say of a loss that the rule does not look at."""
    path = f"{suite_path(suite)}comparisons.{found.metric.name}.{found.baseline}"
    write = written.score(found.metric.unit)
    candidate, baseline = (claims.text(f"{path}.{arm}_mean", write) for arm in ("candidate", "baseline"))
    difference = claims.text(f"{path}.difference", written.difference(found.metric.unit))
    return f"{candidate} against {baseline} of the base ({difference}); no gate looks at it."
