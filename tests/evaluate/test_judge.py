"""Which weights each arm of a judgement has, and that the record says so."""

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
from whetstone.experiment import Experiment
from whetstone.judge_section import ExtraArm, Generation, Judge
from whetstone.model_section import Model, Scratch
from whetstone.models.adapter import add_adapter, load_adapter
from whetstone.models.fingerprint import digest_weights, record_weights
from whetstone.models.load import load_template, load_weights
from whetstone.models.quantise import nf4
from whetstone.models.scratch import save_scratch
from whetstone.report.summary import summarise
from whetstone.run import Judgement, Run, SettingsRecord, Tuning
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

    monkeypatch.setattr("whetstone.evaluate.candidate.TorchEngine", Opened)
    monkeypatch.setattr("whetstone.evaluate.judge.collect", collect)
    monkeypatch.setattr("whetstone.evaluate.judge.look_again", lambda run, experiment, judged: None)
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


def with_arms(experiment: Experiment, **models: str) -> Experiment:
    arms = tuple(ExtraArm(name=name.replace("_", "-"), model=model) for name, model in models.items())
    return experiment.model_copy(update={"judge": experiment.judge.model_copy(update={"arms": arms})})


def judged(run: Run, experiment: Experiment, candidate: Path | None = None) -> Judgement:
    """The judgement, made as the command does: by whoever holds the lock."""
    with run.lock():
        judge(run, experiment, candidate, fresh=False, progress=lambda done, total: None)
    judgement = run.manifest().judgement
    assert judgement is not None
    return judgement


def rows_of(run: Run, arm: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.samples / f"{arm}.jsonl").read_text().splitlines()]


def test_variants_are_measured_like_any_arm(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    experiment = with_arms(
        experiment_of(base, method="lora"),
        tuned_again="tuned",
        tuned_int8="tuned@int8",
        base_nf4="base@nf4",
        merged_bf16="merged@bfloat16",
    )
    run = tuned_run(tmp_path, base, experiment)
    again, int8, nf4_, merged = judged(run, experiment).arms
    weights, adapter = digest_weights(base), digest_weights(run.weights("adapter"))
    assert (again.sha256, again.adapter_sha256, again.dtype, again.quantisation) == (weights, adapter, "float32", None)
    assert (int8.sha256, int8.adapter_sha256, int8.quantisation) == (weights, adapter, "int8")
    assert (nf4_.sha256, nf4_.adapter_sha256, nf4_.quantisation) == (weights, None, "nf4")
    assert nf4_.packages.keys() == {"bitsandbytes"}
    assert (merged.sha256, merged.dtype) == (digest_weights(run.weights("merged")), "bfloat16")
    tuned = rows_of(run, "tuned")
    for arm in (again, int8, nf4_, merged):
        rows = rows_of(run, arm.name)
        assert [row["prompt_hash"] for row in rows] == [row["prompt_hash"] for row in tuned]
        assert all(row["token_ids"] and row["memory_bytes"] and row["end_s"] > 0 for row in rows)
    assert [row["text"] for row in rows_of(run, "tuned-again")] == [row["text"] for row in tuned]
    summary = summarise(run)
    assert [found.baseline for found in summary.held_out.variants] == ["tuned", "tuned", "base", "tuned"]
    assert [arm.arm for arm in summary.held_out.arms][5:] == ["tuned-again", "tuned-int8", "base-nf4", "merged-bf16"]


def test_a_comparison_with_extra_arms_goes_on_where_it_was_interrupted(base: Path, tmp_path: Path) -> None:
    experiment = with_arms(experiment_of(base, method="lora"), tuned_int8="tuned@int8", merged="merged")
    run = tuned_run(tmp_path, base, experiment)
    first = judged(run, experiment)
    before = {path.name: path.read_text() for path in run.samples.iterdir()}
    int8 = run.samples / "tuned-int8.jsonl"
    int8.write_text(before["tuned-int8.jsonl"][:-40])
    assert judged(run, experiment) == first
    after = {path.name: path.read_text() for path in run.samples.iterdir()}
    assert after.pop(int8.name) != before.pop(int8.name), "times differ"
    assert after == before
    assert len(rows_of(run, "tuned-int8")) == 3


def test_a_judgement_that_knew_no_extra_arms_is_the_same_judgement(base: Path, tmp_path: Path) -> None:
    experiment = experiment_of(base, method="lora")
    run = tuned_run(tmp_path, base, experiment)
    now = judged(run, experiment)
    written = now.model_dump(mode="json")
    assert written.pop("arms") == []
    then = Judgement.model_validate(written, strict=False)
    assert then == now
    names = {"rule", "data", "prompts", "base weights", "candidate weights", "device", "packages", "few-shot examples"}
    assert then.identity().keys() == names


def test_an_arm_whose_weights_changed_is_refused(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_scratch(other, SHAPE, ["A dog."] * 3, seed=2)
    experiment = with_arms(experiment_of(base, method="lora"), other=f"{other}@int8")
    run = tuned_run(tmp_path, base, experiment)
    judged(run, experiment)
    assert rows_of(run, "other")[0]["prompt_hash"] != rows_of(run, "tuned")[0]["prompt_hash"]
    (proof,) = [gate for gate in summarise(run).verdict.gates if "same prompts" in gate.name]
    assert (proof.state, "other: asked with its own template" in proof.reason) == ("passed", True)
    save_scratch(other, SHAPE, ["A dog."] * 3, seed=3)
    with pytest.raises(UserError, match="arm other: not what was frozen"):
        judged(run, experiment)


@pytest.mark.parametrize(
    ("model", "candidate", "message"),
    [
        ("tuned@int9", False, r"^judge\.arms\.0\.model: run:run@int9: '@int9' is no precision"),
        ("merged", True, r"^judge\.arms\.0\.model: 'merged' is of the run's own weights"),
        ("random:{base}", False, "random weights"),
        ("run:nobody", False, "no run 'nobody'"),
    ],
)
def test_arms_that_cannot_be_opened_are_refused_before_anything_is_frozen(
    base: Path, tmp_path: Path, model: str, candidate: bool, message: str
) -> None:
    experiment = with_arms(experiment_of(base, method="lora"), extra=model.format(base=base))
    run = tuned_run(tmp_path, base, experiment)
    with pytest.raises(UserError, match=message):
        judged(run, experiment, base if candidate else None)
    assert run.manifest().judgement is None


def test_extra_arms_are_not_asked_more_at_once_than_their_engines_answer(base: Path, tmp_path: Path) -> None:
    experiment = with_arms(experiment_of(base, method="lora"), extra="base@int8")
    judge_ = experiment.judge.model_copy(update={"generation": Generation(max_new_tokens=4, batch_size=65)})
    experiment = experiment.model_copy(update={"judge": judge_})
    run = tuned_run(tmp_path, base, experiment)
    with pytest.raises(UserError, match=r"^judge\.generation\.batch_size: 65: judge\.arms are asked at most 64"):
        judged(run, experiment)


class Parrot(BaseHTTPRequestHandler):
    """A server that says the last message again."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = {"content": f" {asked['messages'][-1]['content']}\n"}
        events: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": said, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
        ]
        answer = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/v1"
        serving.shutdown()


def test_a_served_model_is_an_arm(base: Path, tmp_path: Path, server: str) -> None:
    experiment = with_arms(experiment_of(base, method="lora"), served=f"{server}#parrot")
    run = tuned_run(tmp_path, base, experiment)
    (arm,) = judged(run, experiment).arms
    assert (arm.engine, arm.origin, arm.sha256, arm.template_hash) == ("http", server, None, None)
    examples = [json.loads(line) for line in (run.samples / "examples.jsonl").read_text().splitlines()]
    for row, example in zip(rows_of(run, "served"), examples, strict=True):
        assert row["text"] == example["messages"][-1]["content"]
        assert row["prompt_hash"].startswith("messages:")
        assert (row["token_ids"], row["counted_tokens"], row["prompt_tokens"]) == ([], 2, 5)
        assert row["memory_bytes"] is None
        assert 0 < row["first_token_s"] <= row["end_s"]
    summary = summarise(run)
    (proof,) = [gate for gate in summary.verdict.gates if "same prompts" in gate.name]
    assert (proof.state, "served: rendered by the server" in proof.reason) == ("passed", True)
    assert summary.held_out.arms[-1].speed is not None
    assert summary.held_out.arms[-1].speed.tokens_per_s is not None
