"""Runs with everything that a training can leave, and measured requests."""

import json
import random
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from whetstone.run import RetentionRecord, Run, SettingsRecord

Row = dict[str, Any]

USED = SettingsRecord(
    precision="float32",
    weights="bfloat16",
    attention="sdpa",
    optimiser="adamw_torch_fused",
    compiled=False,
    activation_checkpointing=True,
    quantised=False,
)


def write_rows(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def logged(step: int) -> Row:
    draw, part = random.Random(step).random, step / 400
    return {
        "step": step,
        "steps": 400,
        "epoch": 3 * part,
        "loss": 0.3 + 2 / (1 + step / 40) + 0.05 * draw(),
        "learning_rate": 2e-4 * (1 - part),
        "gradient_norm": 0.6 + draw(),
        "tokens_per_s": 9000 - 2500 * part + 200 * draw(),
        "computed_tokens_per_s": 6000 - 1500 * part + 200 * draw(),
        "loss_tokens": 400 * step,
        "loss_tokens_by_origin": {"task": 340 * step, "replay": 60 * step},
        "elapsed_s": 1.1 * step,
        "memory_bytes": int(20e9 + 4e9 * min(1, 5 * part)),
        "validation_loss": 0.6 + 1.5 / (1 + step / 40) + max(0, step - 200) / 400 if step % 50 == 0 else None,
        "cpu_percent": 150 + 40 * draw(),
        "system_cpu_percent": 80 + 10 * draw(),
        "process_memory_bytes": int(12e9 + 1e9 * part),
        "gpu_percent": None,
        "gpu_memory_bytes": None,
        "cpu_temperature_c": 60 + 15 * part,
        "gpu_temperature_c": None,
        "gpu_power_w": None,
    }


def watched() -> list[Row]:
    said = {
        100: ("She go home .", ""),
        200: ("She goes home .", "Anna walk ."),
        400: ("She goes home .", "Anna walks ."),
    }
    asked = (("v1", "Correct: She go home .", "She goes home ."), ("v2", "Correct: Anna walk .", "Anna walks ."))
    return [
        {"step": step, "example": example, "prompt": prompt, "answer": answer, "reference": reference}
        for step, answers in said.items()
        for (example, prompt, reference), answer in zip(asked, answers, strict=True)
    ]


CHECK: Row = {
    "sources": [],
    "parts": [
        {
            "part": part,
            "examples": 10 * rows,
            "groups": rows // 10,
            "rows": rows,
            "too_long": 3,
            "limit_tokens": 128,
            "tokens": 51 * rows,
            "loss_tokens": 21 * rows,
            "row_tokens": {"minimum": 26, "median": 50.0, "p95": 67.0, "maximum": 91},
            "histogram": [],
        }
        for part, rows in (("train", 6000), ("validation", 200))
    ],
    "findings": [
        {
            "code": "contradiction",
            "severity": "warning",
            "count": 12,
            "total": 6000,
            "message": "12 of 6,000 inputs have different answers.",
            "mend": "Choose 1 of them.",
            "examples": [],
            "share": 0.002,
        }
    ],
    "memory": {"device": "cpu", "held_bytes": 10**9, "available_bytes": 24 * 10**9},
    "template_hash": "5e" * 8,
}


def retained(source: str, difference: float, spread: float | None = 0.03) -> RetentionRecord:
    return RetentionRecord(
        source=source,
        texts=60,
        tokens=4000,
        bytes=16_000,
        windowed=0,
        nll_before=3.12346,
        nll_after=3.12346 + difference,
        bits_per_byte_before=1.1,
        bits_per_byte_after=1.2,
        difference=difference,
        standard_error=0.01,
        low=None if spread is None else difference - spread,
        high=None if spread is None else difference + spread,
    )


@pytest.fixture(scope="session")
def make_training(make_run: Any) -> Callable[[Path], Run]:
    """Writes a run that has everything but the readings of a GPU."""

    def make(path: Path) -> Run:
        run: Run = make_run(path, n=4)
        write_rows(run.metrics_path, [logged(step) for step in (1, *range(10, 401, 10))])
        write_rows(run.watch_path, watched())
        run.check_path.write_text(json.dumps(CHECK))
        retention = (retained("general text", 0.1), retained("replay, held out", -0.05), retained("a text", 0.2, None))
        run.update(
            settings=USED,
            retention=retention,
            notes=(
                "bfloat16 was asked for; this processor has none, so float32 was used.",
                "Out of memory at step 30: 8 rows are computed at once instead of 16.",
            ),
        )
        return run

    return make


@pytest.fixture(scope="session")
def requests() -> list[Row]:
    """Two loads of one model: 400 requests of 8 clients, and 50 of a Poisson process that the sender lagged behind."""
    draw = random.Random(5)
    rows = []
    for process, level, count in (("closed", 8, 405), ("poisson", 2.5, 52)):
        now = 100.0 if process == "poisson" else 0.0
        for index in range(count):
            now += draw.expovariate(level)
            started = now + (draw.random() if process == "poisson" else 0.0)
            first = started + 0.05 + draw.expovariate(10)
            times = [first]
            for _ in range(draw.randint(0, 30)):
                times.append(times[-1] + 0.01 + draw.expovariate(200))
            failed = draw.random() < 0.05
            streamed = index % 7 != 3
            rows.append(
                {
                    "id": f"{process}-{index}",
                    "model": "tuned",
                    "started_s": started,
                    "queued_s": now if process == "poisson" else None,
                    "first_token_s": first if streamed and not failed else None,
                    "end_s": times[-1] + 0.002,
                    "token_times_s": times if streamed and not failed and index % 2 else None,
                    "prompt_tokens": draw.randint(10, 50),
                    "new_tokens": 0 if failed else len(times),
                    "status": draw.choice(["timeout", "http 503"]) if failed else "ok",
                    "streamed": streamed,
                    "warmup": index < 5,
                    "arrival": {"process": process, "level": level},
                }
            )
    return rows


class Page(HTMLParser):
    """The claims of a page, and the visible text that is neither claim, sample, manifest nor chart."""

    void = frozenset({"meta", "link", "input", "br", "path", "line", "circle", "rect"})
    unseen = frozenset({"style", "script", "title", "svg"})

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[tuple[str, str, str]] = []
        self.prose: list[str] = []
        self.text = ""
        self._open: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.void:
            return
        given = dict(attrs)
        exempt = tag in self.unseen or "data-sample" in given or "data-manifest" in given
        if given.get("class") == "claim":
            exempt = True
            self.claims.append((str(given["data-claim"]), str(given["value"]), ""))
        self._open.append((tag, exempt))

    def handle_endtag(self, tag: str) -> None:
        while tag not in self.void and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self._open]
        if "data" in tags:
            path, value, text = self.claims[-1]
            self.claims[-1] = (path, value, text + data)
        if not self.unseen.intersection(tags):
            self.text += data
        if not any(exempt for _, exempt in self._open):
            self.prose.append(data)


@pytest.fixture(scope="session")
def parse() -> Callable[[Path], Page]:
    """Reads a page, as a fixture, because test modules cannot import from each other."""

    def parse(path: Path) -> Page:
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        return page

    return parse


@pytest.fixture(name="retained")
def retained_fixture() -> Callable[..., RetentionRecord]:
    """Makes a retention record: source, difference, half the width of its interval."""
    return retained
