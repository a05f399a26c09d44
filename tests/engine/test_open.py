"""Models opened by their names: what computes, what is shared, what is said of it, and what is refused."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from whetstone.data.example import Message
from whetstone.data_section import Data, GrammarSource
from whetstone.engine import http_engine, open_torch, opened_template
from whetstone.engine.api import Sampling
from whetstone.engine.open import Opened, close_adapter, open_adapter, open_engine, open_engines
from whetstone.engine.open_torch import load_torch
from whetstone.engine.provenance import Provenance
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.model_section import Model, Scratch
from whetstone.models.adapter import add_adapter, load_adapter
from whetstone.models.fingerprint import digest_weights, record_weights
from whetstone.models.load import load_template, load_weights
from whetstone.models.quantise import nf4, round_to_int8
from whetstone.models.scratch import save_scratch
from whetstone.run import Run, SettingsRecord, Tuning
from whetstone.section import stable_hash
from whetstone.tune_section import Tune

SHAPE = Scratch(vocabulary_size=300, dim=64, layers=1, heads=2, feed_forward_dim=64, context_tokens=96)
CPU = torch.device("cpu")
ASKED = (Message("user", "The cat"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter on it, and two runs that tuned such an adapter: by LoRA, and by QLoRA."""
    path = tmp_path_factory.mktemp("models")
    base = path / "base"
    save_scratch(base, SHAPE, ["The cat sits on the mat."] * 3, seed=1)
    torch.manual_seed(0)
    model = add_adapter(load_weights(base, dtype="float32", device=CPU), Tune(rank=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(path / "adapter")
    make_run(path, "lora", "lora")
    make_run(path, "qlora", "qlora")
    return path


def make_run(folder: Path, name: str, method: Any) -> None:
    run, base = Run(folder / "runs" / name), folder / "base"
    experiment = Experiment(
        name=name,
        model=Model(base=str(base), template="plain"),
        data=Data(source=GrammarSource(grammar="corrections", train=1, validation=1, test=1), prompt="Fix: {source}"),
        tune=Tune(method=method, double_quantisation=False),
    )
    run.begin(experiment)
    shutil.copytree(folder / "adapter", run.weights("adapter"))
    template, _ = load_template(base, "plain")
    template.tokenizer.save_pretrained(run.weights("adapter"))
    model = load_weights(base, dtype="float32", device=CPU)
    settings = SettingsRecord(
        precision="bfloat16",
        weights="bfloat16",
        attention="sdpa",
        optimiser="adamw",
        compiled=False,
        activation_checkpointing=False,
        quantised=method == "qlora",
    )
    tuning = Tuning(
        finished_at="2026-01-12T08:13:55+00:00",
        duration_s=1.0,
        steps=1,
        loss_tokens=1,
        final_loss=1.0,
        peak_memory_bytes=1,
        device="cpu",
        template_hash=template.hash,
        tuned=record_weights(name, run.weights("adapter"), model),
    )
    run.update(base=record_weights(str(base), base, model), settings=settings, tuning=tuning)


@pytest.fixture
def opening(folder: Path) -> Iterator[Callable[..., list[Opened]]]:
    """Opens models, and closes them when the test is over."""
    all_opened: list[Opened] = []

    def opened(*refs: str, **options: Any) -> list[Opened]:
        names = [ref.format(folder=folder) for ref in refs]
        all_opened.extend(open_engines(names, runs=folder / "runs", device="cpu", **options))
        return all_opened[-len(refs) :]

    yield opened
    for one in all_opened:
        one.close()


def first_logprob(opened: Opened) -> tuple[int, float]:
    """The first token of an answer, and how likely it was."""
    completion = opened.engine.generate([opened.request(ASKED, max_new_tokens=1, logprobs=0)])[0]
    assert completion.logprobs is not None
    return completion.logprobs[0].token_id, completion.logprobs[0].logprob


def expected_logprob(model: Any, opened: Opened) -> tuple[int, float]:
    assert opened.template is not None
    with torch.no_grad():
        logits = model(torch.tensor([opened.template.prompt_ids(ASKED)])).logits[0, -1].double()
    token = int(logits.argmax())
    return token, float(logits.log_softmax(-1)[token])


def assert_same(one: tuple[int, float], other: tuple[int, float], tolerance: float = 1e-4) -> None:
    assert one[0] == other[0]
    assert math.isclose(one[1], other[1], abs_tol=tolerance)


def weights_of(folder: Path, precision: str) -> Any:
    base = folder / "base"
    if precision == "nf4":
        pytest.importorskip("bitsandbytes")
        return load_weights(base, dtype="float32", device=CPU, quantisation=nf4(CPU, compute_dtype=torch.float32))
    model = load_weights(base, dtype="bfloat16" if precision == "bfloat16" else "float32", device=CPU)
    if precision == "int8":
        round_to_int8(model)
    return model


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "nf4"])
def test_a_folder_answers_as_its_weights_do_at_each_precision(
    folder: Path, opening: Callable[..., list[Opened]], precision: str
) -> None:
    (opened,) = opening(f"{{folder}}/base@{precision}")
    tolerance = 0.05 if precision == "bfloat16" else 1e-4
    assert_same(first_logprob(opened), expected_logprob(weights_of(folder, precision), opened), tolerance)
    provenance = opened.provenance
    assert (provenance.ref, provenance.engine) == (f"{folder}/base@{precision}", "torch")
    assert provenance.sha256 == digest_weights(folder / "base")
    assert provenance.dtype == ("bfloat16" if precision == "bfloat16" else "float32")
    assert provenance.quantisation == (precision if precision in ("int8", "nf4") else None)
    assert (opened.adapter, opened.context_tokens, provenance.random_weights) == (None, 96, False)
    assert provenance.device == "cpu"


def test_models_that_differ_by_the_adapter_share_one_copy(
    folder: Path, opening: Callable[..., list[Opened]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def counted(weights: Any, asked: str) -> Any:
        loaded.append(asked)
        return load_torch(weights, asked)

    monkeypatch.setattr("whetstone.engine.open.load_torch", counted)
    tuned, base, other = opening("{folder}/base+{folder}/adapter", "{folder}/base", "{folder}/base@int8")
    assert len(loaded) == 2
    assert tuned.engine is base.engine is not other.engine
    model = load_weights(folder / "base", dtype="float32", device=CPU)
    assert_same(first_logprob(base), expected_logprob(model, base))
    assert_same(first_logprob(tuned), expected_logprob(load_adapter(model, folder / "adapter"), tuned))
    assert tuned.provenance.adapter_sha256 == digest_weights(folder / "adapter")
    assert base.provenance.adapter_sha256 is None
    assert tuned.provenance.sha256 == base.provenance.sha256


def test_an_adapter_lies_on_rounded_weights_too(folder: Path, opening: Callable[..., list[Opened]]) -> None:
    (opened,) = opening("run:lora@int8")
    model = load_adapter(weights_of(folder, "int8"), folder / "adapter")
    assert_same(first_logprob(opened), expected_logprob(model, opened))


def test_a_run_and_its_base_share_weights_and_the_template_that_was_trained(
    folder: Path, opening: Callable[..., list[Opened]]
) -> None:
    tuned, base = opening("run:lora", "run:lora#base")
    assert tuned.engine is base.engine
    plain, _ = load_template(folder / "base", "plain")
    for opened in (tuned, base):
        assert opened.template is not None
        assert opened.provenance.template_hash == plain.hash
        assert opened.template.prompt_ids(ASKED) == plain.prompt_ids(ASKED)
        assert opened.template.end_of_turn_id == plain.end_of_turn_id
    assert first_logprob(tuned) != first_logprob(base)
    (otherwise,) = opening("run:lora", template="auto", dtype="bfloat16")
    assert otherwise.provenance.dtype == "bfloat16"


def test_the_base_by_its_folder_has_its_own_template_and_an_engine_of_its_own(
    opening: Callable[..., list[Opened]],
) -> None:
    tuned, base = opening("run:lora", "{folder}/base")
    assert tuned.engine is not base.engine
    assert tuned.provenance.template_hash != base.provenance.template_hash
    forced, same = opening("run:lora", "{folder}/base", template="plain")
    assert forced.engine is same.engine


def test_qlora_opens_as_it_was_trained_unless_it_is_said(folder: Path, opening: Callable[..., list[Opened]]) -> None:
    pytest.importorskip("bitsandbytes")
    tuned, base, rounded, whole = opening("run:qlora", "run:qlora#base", "run:qlora#base@nf4", "run:qlora@float32")
    assert tuned.engine is rounded.engine
    assert tuned.provenance.quantisation == "nf4, its constants in float32"
    assert (tuned.provenance.dtype, base.provenance.dtype) == ("bfloat16", "float32")
    assert base.provenance.quantisation is whole.provenance.quantisation is None
    assert base.engine is whole.engine
    quantisation = nf4(CPU, compute_dtype=torch.bfloat16, double=False)
    under = load_weights(folder / "base", dtype="bfloat16", device=CPU, quantisation=quantisation)
    assert_same(first_logprob(tuned), expected_logprob(load_adapter(under, folder / "adapter"), tuned), 0.05)
    with_whole = load_adapter(load_weights(folder / "base", dtype="float32", device=CPU), folder / "adapter")
    assert_same(first_logprob(whole), expected_logprob(with_whole, whole))


def test_merged_weights_answer_as_the_adapter_does(opening: Callable[..., list[Opened]]) -> None:
    tuned, merged = opening("run:lora", "run:lora#merged")
    assert tuned.engine is not merged.engine
    assert_same(first_logprob(tuned), first_logprob(merged))
    assert merged.provenance.sha256 != tuned.provenance.sha256
    assert merged.provenance.template_hash == tuned.provenance.template_hash


def test_random_weights_are_for_tests_and_say_so(
    folder: Path, opening: Callable[..., list[Opened]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"random weights answer nonsense: only with --test-mode$"):
        opening("random:{folder}/base")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(folder / "base" / name, tmp_path / name)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again = opening(f"random:{tmp_path}@bfloat16", f"random:{tmp_path}@bfloat16", test_mode=True)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.engine is again.engine
    assert first.provenance.random_weights
    assert (first.provenance.sha256, first.provenance.dtype) == (None, "bfloat16")


def test_mlx_answers_as_torch_does(opening: Callable[..., list[Opened]]) -> None:
    pytest.importorskip("mlx_lm")
    torch_one, mlx_one = opening("run:lora", "mlx:run:lora")
    assert_same(first_logprob(torch_one), first_logprob(mlx_one), 1e-3)
    assert (mlx_one.provenance.engine, mlx_one.context_tokens) == ("mlx", 96)
    assert mlx_one.provenance.adapter_sha256 == torch_one.provenance.adapter_sha256


def test_a_server_gets_messages_and_the_key_that_is_meant_for_it(
    monkeypatch: pytest.MonkeyPatch, opening: Callable[..., list[Opened]]
) -> None:
    keys: list[tuple[str, str, str | None]] = []

    class Engine:
        def __init__(self, url: str, model: str, *, api_key: str | None) -> None:
            keys.append((url, model, api_key))

        def close(self) -> None:
            pass

    monkeypatch.setattr(http_engine, "HttpEngine", Engine)
    monkeypatch.delenv("WHETSTONE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "openai's")
    refs = ["https://example.org/v1#m", "https://api.openai.com/v1#m"]
    opened = opening(*refs)[0]
    monkeypatch.setenv("WHETSTONE_API_KEY", "ours")
    opening(*refs)
    assert [key for _, _, key in keys] == [None, "openai's", "ours", "ours"]
    request = opened.request(ASKED, max_new_tokens=3, seed=4, sampling=Sampling(temperature=1.0), stop=(".",))
    assert (request.token_ids, request.messages, request.stop, request.seed) == ((), ASKED, (".",), 4)
    assert (opened.template, opened.context_tokens, opened.provenance.template_hash) == (None, None, None)
    assert (opened.provenance.engine, opened.provenance.origin) == ("http", "https://example.org/v1")


def test_all_is_found_before_anything_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_torch, "load_weights", lambda *rest, **named: pytest.fail("weights were read"))
    with pytest.raises(UserError, match=r"no run 'lor'.*did you mean 'lora'"):
        open_engines([f"{folder}/base", "run:lor"], runs=folder / "runs", device="cpu")
    with pytest.raises(UserError, match="'float8' is no type of weights"):
        open_engine(f"{folder}/base", runs=folder / "runs", device="cpu", dtype="float8")


def test_engines_that_are_open_are_closed_when_another_fails(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []
    monkeypatch.setattr("whetstone.engine.torch_engine.TorchEngine.close", lambda engine: closed.append(engine))
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    save_scratch(tmp_path / "wide", SHAPE.model_copy(update={"dim": 32}), ["The cat sits."] * 3, seed=1)
    refs: Sequence[str] = [f"{folder}/base", f"{tmp_path}/wide+{tmp_path}/adapter"]
    with pytest.raises(UserError, match="does not fit the base model"):
        open_engines(refs, runs=folder / "runs", device="cpu")
    assert len(closed) == 1


def test_a_template_that_changed_since_tuning_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "lora" / "adapter" / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    with pytest.raises(UserError, match="template"):
        open_engine("run:lora", runs=tmp_path / "runs", device="cpu")


def test_a_tokenizer_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer cannot be read .*restore tokenizer\.json"):
        opened_template.saved_tokenizer(tmp_path)


def test_an_adapter_opened_later_is_what_it_is_when_opened_at_once(
    folder: Path, opening: Callable[..., list[Opened]]
) -> None:
    (expected,) = opening("{folder}/base+{folder}/adapter")
    (base,) = opening("{folder}/base")
    before = first_logprob(base)
    later = open_adapter(base, folder / "adapter", runs=folder / "runs")
    assert later.engine is base.engine
    assert first_logprob(later) == first_logprob(expected)
    assert first_logprob(base) == before
    assert later.adapter == expected.adapter
    assert (later.template, later.weights, later.context_tokens) == (base.template, base.weights, 96)
    assert later.provenance.ref == str(folder / "adapter")
    for field in ("engine", "sha256", "adapter_sha256", "dtype", "quantisation", "template_hash", "device"):
        assert getattr(later.provenance, field) == getattr(expected.provenance, field)
    with pytest.raises(UserError, match="is loaded already"):
        open_adapter(base, folder / "adapter", runs=folder / "runs")
    close_adapter(later)
    with pytest.raises(UserError, match=r"no adapter '.*' is loaded"):
        first_logprob(later)
    with pytest.raises(UserError, match="cannot be unloaded"):
        close_adapter(later)
    with pytest.raises(UserError, match="no adapter; close it with its engine"):
        close_adapter(base)
    assert first_logprob(open_adapter(base, folder / "adapter", runs=folder / "runs")) == first_logprob(expected)


def test_a_run_is_opened_later_on_what_it_began_with(
    folder: Path, opening: Callable[..., list[Opened]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = opening("run:lora")
    base, rounded = opening("run:lora#base", "run:lora#base@bfloat16")
    hashed: list[Path] = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return digest_weights(path)

    monkeypatch.setattr("whetstone.models.resolve.digest_weights", counted)
    later = open_adapter(base, "run:lora", runs=folder / "runs")
    assert first_logprob(later) == first_logprob(expected)
    assert later.adapter == expected.adapter
    assert later.provenance == expected.provenance
    # The base is in memory: what lies on the disk now says nothing of it, and takes long to read.
    assert folder / "base" not in hashed
    with pytest.raises(UserError, match=r"run:lora: meant for weights in float32, and .* holds them in bfloat16"):
        open_adapter(rounded, "run:lora", runs=folder / "runs")
    said = open_adapter(rounded, "run:lora@bfloat16", runs=folder / "runs")
    assert (said.provenance.dtype, said.provenance.ref) == ("bfloat16", "run:lora@bfloat16")
    assert len(first_logprob(said)) == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("run:qlora", r"run:qlora: meant for weights in bfloat16 \(nf4, .*multiplied in bfloat16\), and .* in float32"),
        ("run:lora#base", "no adapter on other weights; open it by itself"),
        ("gguf:{folder}/model.gguf", "no adapter; give the folder of one, or run:NAME"),
        ("run:none", "no run 'none'"),
        ("{folder}/wide+{folder}/adapter", "lies on other weights than run:lora#base"),
        ("{folder}/base+{folder}/adapter", "asked with another template or tokenizer than run:lora#base"),
        (Path("base"), "holds no adapter_config.json"),
        (Path("no_such"), "no such folder"),
    ],
)
def test_what_is_not_meant_for_the_weights_is_refused_later(
    folder: Path, opening: Callable[..., list[Opened]], source: str | Path, said: str
) -> None:
    save_scratch(folder / "wide", SHAPE.model_copy(update={"dim": 32}), ["The cat sits."] * 3, seed=1)
    (base,) = opening("run:lora#base")
    before = first_logprob(base)
    named = source.format(folder=folder) if isinstance(source, str) else folder / source
    with pytest.raises(UserError, match=said):
        open_adapter(base, named, runs=folder / "runs")
    base.engine.forget()  # type: ignore[attr-defined]
    assert first_logprob(base) == before


def test_weights_that_changed_since_tuning_are_refused_later(
    folder: Path, opening: Callable[..., list[Opened]], tmp_path: Path
) -> None:
    shutil.copytree(folder / "runs", tmp_path / "runs")
    shutil.copyfile(folder / "base" / "config.json", tmp_path / "runs" / "lora" / "adapter" / "config.json")
    (base,) = opening("run:lora#base")
    with pytest.raises(UserError, match="the weights are not those that were tuned"):
        open_adapter(base, "run:lora", runs=tmp_path / "runs")


def test_texts_become_vectors_by_torch_alone(folder: Path, opening: Callable[..., list[Opened]]) -> None:
    tuned, base = opening("run:lora", "run:lora#base")
    ids = list(base.template.prompt_ids(ASKED)) if base.template is not None else []
    assert tuned.embed(ids) != base.embed(ids)
    assert math.isclose(sum(value * value for value in tuned.embed(ids)), 1, abs_tol=1e-5)
    elsewhere = open_engine("http://127.0.0.1:9/v1#m", runs=folder / "runs")
    with pytest.raises(UserError, match="the engine 'http' makes no vectors of texts; open the model with torch"):
        elsewhere.embed(ids)
    with pytest.raises(UserError, match="the engine 'http' takes no adapters; open the model with torch"):
        open_adapter(elsewhere, folder / "adapter", runs=folder / "runs")
    elsewhere.close()


def test_what_is_written_beside_answers_does_not_change_with_the_device() -> None:
    provenance = Provenance("run:demo", "torch", "a test", "ab" * 32, dtype="float32", device="cuda")
    assert "device" not in provenance.recorded()
    # As it stood in files of answers before the device was known.
    assert stable_hash(provenance.recorded()) == "c17f6bab9212bc01"
