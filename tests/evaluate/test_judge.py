"""Which weights each arm of a judgement has, and that the record says so."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from whetstone.data.template import Template
from whetstone.data_section import Data, GrammarSource
from whetstone.errors import UserError
from whetstone.evaluate.collect import Generator
from whetstone.evaluate.judge import judge
from whetstone.experiment import Experiment, Generation, Judge
from whetstone.model_section import Model, Scratch
from whetstone.models.adapter import add_adapter, load_adapter
from whetstone.models.fingerprint import record_weights
from whetstone.models.load import load_template, load_weights
from whetstone.models.quantise import nf4
from whetstone.models.scratch import save_scratch
from whetstone.run import Run, SettingsRecord, Tuning
from whetstone.train.tune import base_folder
from whetstone.tune_section import Tune

SHAPE = Scratch(vocabulary_size=300, dim=64, layers=2, heads=4, feed_forward_dim=128, context_tokens=256)
CPU = torch.device("cpu")
ADAPTERS = ["lora", "dpo", "orpo", "grpo"]
IDS = torch.randint(3, 250, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_scratch(path, SHAPE, ["The cat sits on the mat."] * 3, seed=1)
    return path


def whole(base: Path) -> PreTrainedModel:
    return load_weights(base, dtype="float32", device=CPU)


def in_nf4(base: Path, dtype: str, *, double: bool) -> PreTrainedModel:
    pytest.importorskip("bitsandbytes")
    quantisation = nf4(CPU, compute_dtype=getattr(torch, dtype), double=double)
    return load_weights(base, dtype=dtype, device=CPU, quantisation=quantisation)


def experiment_of(base: Path, **tune: Any) -> Experiment:
    return Experiment(
        name="run",
        model=Model(scratch=SHAPE) if tune["method"] == "scratch" else Model(base=str(base)),
        data=Data(
            source=GrammarSource(grammar="corrections", train=1, validation=1, test=3),
            prompt="Fix: {source}",
            max_tokens=SHAPE.context_tokens,
        ),
        tune=Tune(rank=4, **tune),
        judge=Judge(generation=Generation(max_new_tokens=4)),
    )


def tuned_run(folder: Path, base: Path, experiment: Experiment, *, dtype: str = "float32") -> Run:
    """A run whose adapter, or model, is far from the base."""
    run, tune = Run(folder / "run"), experiment.tune
    run.begin(experiment)
    torch.manual_seed(0)
    quantised = tune.method == "qlora"
    model = in_nf4(base, dtype, double=tune.double_quantisation) if quantised else whole(base)
    model = add_adapter(model, tune) if tune.adapts else model
    for name, parameter in model.named_parameters():
        if "lora_B" in name or (not tune.adapts and parameter.ndim > 1):
            torch.nn.init.normal_(parameter, std=0.3)
    kind = "adapter" if tune.adapts else "model"
    model.save_pretrained(run.weights(kind))
    if tune.method == "scratch":
        save_scratch(run.weights("base"), SHAPE, ["The cat sits on the mat."] * 3, seed=1)
    tuning = Tuning(
        finished_at="2026-01-12T08:13:55+00:00",
        duration_s=1.0,
        steps=1,
        loss_tokens=1,
        final_loss=1.0,
        peak_memory_bytes=1,
        device="cpu",
        template_hash=load_template(base, "auto")[0].hash,
        tuned=record_weights("run", run.weights(kind), model),
    )
    settings = SettingsRecord(
        precision=dtype,
        weights=dtype,
        attention="sdpa",
        optimiser="adamw_torch_fused",
        compiled=False,
        activation_checkpointing=False,
        quantised=quantised,
    )
    run.update(tuning=tuning, settings=settings)
    return run


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


class Opened:
    """Stands for the engine: what an arm would be asked with."""

    def __init__(self, model: Any, template: Template, *, adapters: dict[str, Path], **limits: Any) -> None:
        self._model = model
        for name, folder in adapters.items():
            self._model = load_adapter(model, folder, name=name)

    def logits(self, adapter: str | None) -> torch.Tensor:
        plain = isinstance(self._model, PeftModel) and adapter is None
        with self._model.disable_adapter() if plain else contextlib.nullcontext():
            return logits(self._model)


def arms_of(run: Run, experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The logits of each arm as it would answer, taken one after the other, as answers are."""
    taken: list[Generator] = []

    def collect(prompts: Any, generators: Sequence[Generator], *rest: Any) -> None:
        taken.extend(generators)

    monkeypatch.setattr("whetstone.evaluate.judge.TorchEngine", Opened)
    monkeypatch.setattr("whetstone.evaluate.judge.collect", collect)
    judge(run, experiment, None, fresh=False, progress=lambda done, total: None)
    found: dict[str, torch.Tensor] = {}
    for generator in (*taken, *taken):
        assert isinstance(generator.engine, Opened)
        found[generator.arm] = generator.engine.logits(generator.adapter)
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("double", [True, False])
def test_qlora_is_judged_on_its_quantised_base_against_the_whole_one(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, double: bool
) -> None:
    experiment = experiment_of(base, method="qlora", double_quantisation=double)
    run = tuned_run(tmp_path, base, experiment, dtype=dtype)
    arms = arms_of(run, experiment, monkeypatch)
    expected = logits(load_adapter(in_nf4(base, dtype, double=double), run.weights("adapter")))
    assert torch.equal(arms["base"], logits(whole(base)))
    assert torch.equal(arms["base-again"], arms["base"])
    assert torch.equal(arms["tuned"], expected)
    other = logits(load_adapter(in_nf4(base, dtype, double=not double), run.weights("adapter")))
    assert not torch.equal(other, expected)
    assert not torch.equal(logits(load_adapter(whole(base), run.weights("adapter"))), expected.float())


@pytest.mark.parametrize("method", ADAPTERS)
def test_other_adapters_are_judged_on_the_whole_base(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    experiment = experiment_of(base, method=method)
    run = tuned_run(tmp_path, base, experiment)
    arms = arms_of(run, experiment, monkeypatch)
    assert torch.equal(arms["base"], logits(whole(base)))
    assert torch.equal(arms["base-again"], arms["base"])
    assert torch.equal(arms["tuned"], logits(load_adapter(whole(base), run.weights("adapter"))))
    assert not torch.equal(arms["tuned"], arms["base"])


@pytest.mark.parametrize("method", ["full", "scratch"])
def test_whole_models_are_judged_as_they_are(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    experiment = experiment_of(base, method=method)
    run = tuned_run(tmp_path, base, experiment)
    arms = arms_of(run, experiment, monkeypatch)
    assert torch.equal(arms["base"], logits(whole(base_folder(run, experiment))))
    assert torch.equal(arms["tuned"], logits(whole(run.weights("model"))))
    assert not torch.equal(arms["tuned"], arms["base"])


def test_an_adapter_on_a_quantised_base_and_on_the_whole_one_are_two_judgements(base: Path, tmp_path: Path) -> None:
    experiment = experiment_of(base, method="qlora")
    run = tuned_run(tmp_path, base, experiment, dtype="bfloat16")

    def judged(candidate: Path | None, *, fresh: bool = False) -> str:
        judge(run, experiment, candidate, fresh=fresh, progress=lambda done, total: None)
        return (run.samples / "tuned.jsonl").read_text()

    on_nf4 = judged(None)
    first = run.manifest().judgement
    adapter = run.weights("adapter")
    assert first is not None
    assert first.candidate.origin == (
        f"{adapter} on the base in NF4, its constants quantised too (bfloat16 weights, products in bfloat16)"
    )
    assert first.packages.keys() >= {"bitsandbytes", "torch"}
    assert judged(None) == on_nf4
    with pytest.raises(UserError, match="packages: not what was frozen"):
        judged(adapter)
    on_whole = judged(adapter, fresh=True)
    second = run.manifest().judgement
    assert second is not None
    assert second.candidate.origin == str(adapter)
    assert second.candidate.sha256 == first.candidate.sha256
    assert second.fingerprint() != first.fingerprint()
    assert "bitsandbytes" not in second.packages
    assert run.manifest().earlier_judgements == (first,)
    assert on_whole != on_nf4


def test_a_run_without_weights_names_what_makes_them(base: Path, tmp_path: Path) -> None:
    experiment = experiment_of(base, method="dpo")
    run = Run(tmp_path / "run")
    run.begin(experiment)
    with pytest.raises(UserError, match="not tuned yet; call 'whet tune'"):
        judge(run, experiment, None, fresh=False, progress=lambda done, total: None)
