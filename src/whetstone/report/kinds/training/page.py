"""The report of a training as one HTML page."""

import json

from markupsafe import Markup

from whetstone.report import format as written
from whetstone.report.claims import Claims
from whetstone.report.format import Write
from whetstone.report.frame import render
from whetstone.report.kinds.advice import writer
from whetstone.report.kinds.training.charts import CHARTS, draw_loss
from whetstone.report.kinds.training.schema import TrainingReport
from whetstone.report.training import RETENTION_CAPTION

__all__ = ["SENSOR_WRITERS", "plain_number", "render_training"]

_CURVE_SIZES = {"wide": (840, 260), "narrow": (285, 200)}


def plain_number(value: float) -> str:
    """To three digits."""
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{value:.0f}%"


def _celsius(value: float) -> str:
    return f"{value:.0f} °C"


SENSOR_WRITERS: dict[str, tuple[str, Write]] = {
    "cpu_percent": ("Processor, this process, of one core", _percent),
    "system_cpu_percent": ("Processor, all processes, of all cores", _percent),
    "process_memory_bytes": ("Memory of the process", written.byte_size),
    "gpu_percent": ("GPU load", _percent),
    "gpu_memory_bytes": ("GPU memory in use", written.byte_size),
    "cpu_temperature_c": ("Processor temperature", _celsius),
    "gpu_temperature_c": ("GPU temperature", _celsius),
    "gpu_power_w": ("GPU power", lambda value: f"{value:.0f} W"),
}


def render_training(report: TrainingReport, small: dict[str, str | None]) -> str:
    """Renders the page.

    Args:
        report: What it says.
        small: The charts beside that of the loss; their texts are our own words and numbers, so they are safe.
    """
    claims = Claims(report.model_dump(mode="json"))
    curves = {size: draw_loss(report, width=width, height=height) for size, (width, height) in _CURVE_SIZES.items()}
    return render(
        "training.html.j2",
        report=report,
        claim=claims.html,
        charts=CHARTS,
        config=json.dumps(report.experiment, indent=2, ensure_ascii=False),
        curves={size: Markup(svg) for size, svg in curves.items() if svg is not None},
        drawn={name: None if svg is None else Markup(svg) for name, svg in small.items()},
        plain=plain_number,
        retention_caption=RETENTION_CAPTION,
        scientific=lambda value: f"{value:.2e}",
        sensors=SENSOR_WRITERS,
        two=lambda value: f"{value:.2f}",
        writer=writer,
    )
