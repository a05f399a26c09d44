"""Every benchmark runs with --quick --json, and ends with a line that holds its ratios."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def _run(name: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["quick"] is True
    assert result["machine"]["packages"]["torch"]
    return result


def test_training_beside_trl() -> None:
    result = _run("train_vs_trl", "--threads", "1")
    ratios = result["ratios"]["four references"]
    assert ratios["whet"] == 1.0
    assert "TRL default" in ratios
    assert all(ratio > 0 for ratio in ratios.values())
    losses = [run["held_out_loss"] for run in result["rounds"]["four references"][0].values()]
    # Random weights over 32,000 tokens begin at about ln 32,000 and have all learned something.
    assert max(losses) < math.log(32_000) < 1.1 * min(losses)


def test_pretraining_beside_a_plain_loop() -> None:
    result = _run("scratch_vs_eager", "--threads", "1")
    assert result["ratios"]["eager"] == 1.0
    losses = {name: run["validation_loss"] for name, run in result["rounds"][0].items()}
    assert losses["eager"] < math.log(2048)
    # Everybody learns the same rows from the same weights.
    assert all(abs(loss - losses["eager"]) < 0.05 for loss in losses.values())


def test_memory_estimate() -> None:
    ratios = _run("estimate_memory")["ratios"]
    assert ratios
    assert all(0.5 < ratio < 2 for ratio in ratios.values())


def test_checks_find_what_was_planted() -> None:
    result = _run("check_at_scale")
    assert result["rows"] > 0
    assert set(result["ratios"].values()) == {1.0}


def test_engines_beside_their_peers() -> None:
    result = _run("engine_vs_peers", "--threads", "1", "--load", "--stream", "--soak", "200")
    assert result["ratios"]["load, tiny"]["whet"] == 1.0
    assert "generate" in result["ratios"]["stream, tiny, float32"]
    # An answer may differ where rounding decides between two tokens, and nowhere else.
    compared = result["agreement"]["tiny"]
    assert all(same == rows or gap < 1e-4 for same, rows, gap in compared.values())
    soak = result["soak"]
    assert soak["finished"] + soak["left"] == soak["requests"] == 200


def test_calibration_of_the_statistics() -> None:
    checks = _run("calibration")["checks"]
    assert len({(check["what"], check["scores"]) for check in checks}) == len(checks) == 63
    rates = {
        name: [check["value"] for check in checks if check["what"] == name] for name in (c["what"] for c in checks)
    }
    # Two dozen worlds show a method that is broken, not one that is a little off.
    assert max(rates["base called better or worse than base"]) < 0.3
    assert max(rates["the same, stopped as soon as it is"]) < 0.3
    assert min(rates["95% interval of the difference covers it"]) > 0.7
    assert min(rates["power at the minimum detectable effect"]) > 0.4
    assert max(rates["rows read before stopping at twice that effect"]) < 0.7


def test_load_clients_beside_each_other() -> None:
    ratios = _run("load_client", "--streams", "16")["ratios"]
    assert ratios["whet"] == 1.0
    assert ratios["httpx"] > 0


def test_servers_beside_each_other() -> None:
    names = ("transformers serve", "engine, no server")
    result = _run("serve_vs_peers", "--threads", "1", *(option for name in names for option in ("--contestant", name)))
    assert set(result["ratios"]) == set(names)
    measured = result["rounds"][0]["transformers serve"]
    assert 0 < measured["ttft_s"] < measured["seconds"]
    assert measured["tokens_per_s"] > 0
