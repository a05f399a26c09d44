"""Adapters that are asked for from outside: what is found, what is not told, and what they go on."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from whetstone.engine.open import open_engines
from whetstone.errors import UserError
from whetstone.models.fingerprint import digest_weights
from whetstone.serve.proof.adapters import ProvedAdapter, find_base, prove_adapter, serve_adapter

NOT_THERE = "no folder of this name below the roots for adapters"


@pytest.fixture
def root(shop: Any, tmp_path: Path) -> Path:
    """A root with a copy of the judged adapter, and one of which nobody knows anything."""
    root = tmp_path / "root"
    adapter = shop.run("greedy").weights("adapter")
    shutil.copytree(adapter, root / "team" / "copy")
    shutil.copytree(adapter, root / "unknown")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (root / "unknown" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1}))
    return root


def prove(shop: Any, source: str, *roots: Path, force: bool = False) -> ProvedAdapter:
    return prove_adapter(source, runs=shop.runs, roots=roots, force=force)


def test_the_adapter_of_a_run(shop: Any) -> None:
    found = prove(shop, "run:greedy")
    adapter = shop.run("greedy").weights("adapter")
    assert (found.folder, found.sha256) == (adapter.resolve(), digest_weights(adapter))
    assert found.base_sha256 == digest_weights(shop.base)
    assert (found.standing.verdict, found.standing.refusal) == ("SHIP", None)


def test_a_copy_of_a_judged_adapter_is_known_by_its_hash(shop: Any, root: Path) -> None:
    found = prove(shop, "team/copy", root)
    assert (found.folder, found.standing.verdict) == ((root / "team" / "copy").resolve(), "SHIP")
    assert found.base_sha256 == digest_weights(shop.base)


def test_what_was_not_judged_to_ship_needs_force(shop: Any, root: Path) -> None:
    for source, said in (
        ("unknown", "not judged: no run here was judged with this adapter"),
        ("run:tuned", "not judged; call 'whet compare tuned'"),
        ("run:drawn", "INCONCLUSIVE: Truncated better than base"),
    ):
        with pytest.raises(UserError, match=f"^{source}: not served: {said}"):
            prove(shop, source, root)
        assert prove(shop, source, root, force=True).standing.refusal is not None
    assert prove(shop, "unknown", root, force=True).base_sha256 is None


@pytest.mark.parametrize(
    "source",
    ["", ".", "..", "../root/unknown", "team/../unknown", "/etc", "C:\\x", "C:x", "team\\copy", "nobody", "unknown\0",
     "~", "link-out", "link-file-out", "unknown/adapter_config.json", "pipe", "circle"],
)  # fmt: skip
def test_nothing_outside_the_roots_is_found_or_told_of(shop: Any, root: Path, tmp_path: Path, source: str) -> None:
    (tmp_path / "outside").mkdir()
    shutil.copytree(root / "unknown", tmp_path / "outside" / "adapter")
    (root / "link-out").symlink_to(tmp_path / "outside" / "adapter")
    (root / "circle").symlink_to(root / "circle")
    shutil.copytree(root / "unknown", root / "link-file-out")
    weights = root / "link-file-out" / "adapter_model.safetensors"
    weights.unlink()
    weights.symlink_to(tmp_path / "outside" / "adapter" / "adapter_model.safetensors")
    shutil.copytree(root / "unknown", root / "pipe")
    os.mkfifo(root / "pipe" / "more.safetensors")
    with pytest.raises(UserError, match=NOT_THERE):
        prove(shop, source, root, force=True)


def test_an_absolute_path_into_a_root_is_refused_too(shop: Any, root: Path) -> None:
    with pytest.raises(UserError, match=NOT_THERE):
        prove(shop, str(root / "unknown"), root, force=True)
    with pytest.raises(UserError, match=NOT_THERE):
        prove(shop, "unknown", force=True)


def test_a_link_that_stays_below_its_root_is_followed(shop: Any, root: Path) -> None:
    (root / "link").symlink_to(root / "team" / "copy")
    assert prove(shop, "link", root, force=True).folder == (root / "team" / "copy").resolve()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("run:greedy#base", "give run:NAME"),
        ("run:greedy@int8", "give run:NAME"),
        ("run:../root", "cannot be a run's name"),
        ("run:nobody", "no run 'nobody'"),
    ],
)
def test_only_adapters_of_runs_are_runs(shop: Any, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prove(shop, source, force=True)


@pytest.mark.parametrize(
    "change", [{"peft_type": "PROMPT_TUNING"}, {"megatron_config": {"x": 1}, "megatron_core": "antigravity"}]
)
def test_adapters_of_other_kinds_are_refused(shop: Any, root: Path, change: dict[str, Any]) -> None:
    config = root / "unknown" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match="not that of a plain LoRA adapter"):
        prove(shop, "unknown", root, force=True)
    config.unlink()
    with pytest.raises(UserError, match="holds no adapter_config"):
        prove(shop, "unknown", root, force=True)


def test_a_changed_adapter_is_no_longer_the_run_s(shop: Any) -> None:
    config = shop.run("greedy").weights("adapter") / "adapter_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(UserError, match="the weights are not those that were tuned"):
        prove(shop, "run:greedy", force=True)


def test_an_adapter_goes_on_its_own_base_and_answers_as_it_was_judged(shop: Any, root: Path) -> None:
    found = prove(shop, "run:greedy")
    refs = ["builtin:demo-base", f"{shop.base}@int8", f"{shop.base}@bfloat16", "run:greedy#base", "run:greedy"]
    opened = open_engines(refs, runs=shop.runs, device="cpu")
    try:
        assert find_base(found, opened) is opened[3]
        assert find_base(found, opened[:3]) is opened[2]
        with pytest.raises(UserError, match=r"^run:greedy: the base of \w+ is not served here"):
            find_base(found, opened[:2])
        unknown = prove(shop, "unknown", root, force=True)
        assert find_base(unknown, opened) is opened[0]
        served = serve_adapter("late", found, opened[4], force=False, device="cpu", stage=lambda said: None)
        assert (served.model.name, served.model.ref) == ("late", "run:greedy")
        assert (served.model.proof.verdict, served.model.proof.equal) == ("SHIP", 10)
        with pytest.raises(UserError, match="the weights changed while they were loaded"):
            serve_adapter("late", found, opened[3], force=True, device="cpu", stage=lambda said: None)
        other = replace(found, base_sha256="0" * 64)
        with pytest.raises(UserError, match="the weights changed while they were loaded"):
            serve_adapter("late", other, opened[4], force=True, device="cpu", stage=lambda said: None)
    finally:
        for one in opened:
            one.close()
