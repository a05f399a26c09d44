"""Where the models of runs and folders lie, and that nothing is opened that is not what was recorded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from whetstone.data_section import Data, GrammarSource
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.model_section import Model, Scratch
from whetstone.models import resolve
from whetstone.models.adapter import add_adapter
from whetstone.models.fingerprint import digest_weights, record_weights
from whetstone.models.load import BUILTIN_BASE, load_template, load_weights, locate
from whetstone.models.merge import merge
from whetstone.models.ref import is_there, parse_ref
from whetstone.models.resolve import Nf4Training, Resolved, Resolver
from whetstone.models.scratch import save_scratch
from whetstone.run import Run, SettingsRecord, Tuning
from whetstone.tune_section import Tune

SHAPE = Scratch(vocabulary_size=300, dim=16, layers=1, heads=2, feed_forward_dim=32, context_tokens=64)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept")
    save_scratch(path / "base", SHAPE, ["The cat sits."] * 3, seed=1)
    model = add_adapter(load_weights(path / "base", dtype="float32", device=CPU), Tune(rank=2))
    model.save_pretrained(path / "adapter")
    return path


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    shutil.copytree(kept, tmp_path / "models")
    return tmp_path


def make_run(folder: Path, *, tuned: bool = True, quantised: bool = False, **tune: Any) -> Run:
    """A run named ``demo`` whose adapter, or whole model, is a copy."""
    base, run = folder / "models" / "base", Run(folder / "runs" / "demo")
    experiment = Experiment(
        name="demo",
        model=Model(base=str(base), dtype="bfloat16"),
        data=Data(source=GrammarSource(grammar="corrections", train=1, validation=1, test=1), prompt="Fix: {source}"),
        tune=Tune(**tune),
    )
    run.begin(experiment)
    model = load_weights(base, dtype="float32", device=CPU)
    run.update(base=record_weights(str(base), base, model))
    if tuned:
        weights = run.weights("adapter" if experiment.tune.adapts else "model")
        shutil.copytree(folder / "models" / ("adapter" if experiment.tune.adapts else "base"), weights)
        template, _ = load_template(base, "auto")
        template.tokenizer.save_pretrained(weights)
        run.update(
            settings=SettingsRecord(
                precision="bfloat16",
                weights="float32",
                attention="sdpa",
                optimiser="adamw",
                compiled=False,
                activation_checkpointing=False,
                quantised=quantised,
            ),
            tuning=Tuning(
                finished_at="2026-01-12T08:13:55+00:00",
                duration_s=1.0,
                steps=1,
                loss_tokens=1,
                final_loss=1.0,
                peak_memory_bytes=1,
                device="cpu",
                template_hash=template.hash,
                tuned=record_weights("demo", weights, model),
            ),
        )
    return run


def found(folder: Path, text: str) -> Resolved:
    return Resolver(folder / "runs").resolve(parse_ref(text, is_there))


def test_a_folder_is_itself_with_its_hash(folder: Path) -> None:
    base, adapter = folder / "models" / "base", folder / "models" / "adapter"
    alone = found(folder, str(base))
    assert (alone.path, alone.sha256, alone.adapter) == (base, digest_weights(base), None)
    both = found(folder, f"{base}+{adapter}@int8")
    assert (both.path, both.adapter) == (base, adapter)
    assert (both.sha256, both.adapter_sha256) == (digest_weights(base), digest_weights(adapter))
    assert found(folder, BUILTIN_BASE).path == locate(BUILTIN_BASE)
    assert found(folder, f"random:{base}").sha256 is None


def test_a_home_is_found_behind_a_sign(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert found(folder, "~/models/base+~/models/adapter").adapter == folder / "models" / "adapter"


def test_a_run_is_its_adapter_on_its_base(folder: Path) -> None:
    run, base = make_run(folder), folder / "models" / "base"
    tuned, before = found(folder, "run:demo"), found(folder, "run:demo#base")
    assert (tuned.path, tuned.adapter, tuned.tokenizer) == (base, run.weights("adapter"), run.weights("adapter"))
    assert (before.path, before.adapter, before.tokenizer) == (base, None, run.weights("adapter"))
    assert tuned.dtype == before.dtype == "bfloat16"
    assert tuned.trained_nf4 is None
    assert found(folder, "mlx:run:demo") == tuned


def test_merged_weights_are_made_for_a_caller_that_holds_the_lock(folder: Path) -> None:
    run, ref = make_run(folder), parse_ref("run:demo#merged")
    with run.lock():
        with pytest.raises(UserError, match="another process"):
            Resolver(folder / "runs").resolve(ref)
        made = Resolver(folder / "runs", held="demo").resolve(ref)
        assert made.path == run.weights("merged")
        assert Resolver(folder / "runs").resolve(ref) == made


def test_a_run_that_tuned_everything_is_one_model(folder: Path) -> None:
    run = make_run(folder, method="full")
    assert (found(folder, "run:demo").path, found(folder, "run:demo").adapter) == (run.weights("model"), None)
    with pytest.raises(UserError, match=r"nothing to merge; take run:demo$"):
        found(folder, "run:demo#merged")


def test_a_run_of_qlora_says_how_its_base_was_held(folder: Path) -> None:
    make_run(folder, method="qlora", double_quantisation=False, quantised=True)
    assert found(folder, "run:demo").trained_nf4 == Nf4Training("float32", "bfloat16", double=False)


def test_merged_weights_are_made_once_and_again_when_anything_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def counted(*arguments: Any) -> str:
        made.append(arguments[2])
        return merge(*arguments)

    monkeypatch.setattr(resolve, "merge", counted)
    run = make_run(folder)
    first = found(folder, "run:demo#merged")
    assert (first.path, first.adapter) == (run.weights("merged"), None)
    assert load_weights(first.path, dtype="auto", device=CPU).dtype == torch.bfloat16
    assert found(folder, "run:demo#merged@int8") == first
    assert made == [first.path]
    weights = first.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"torn")
    assert found(folder, "run:demo#merged") == first
    note = first.path / "merged.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"adapter": "another"}))
    assert found(folder, "run:demo#merged") == first
    assert len(made) == 3


def spoil(file: Path) -> None:
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"spoilt": True}))


def test_weights_that_changed_are_refused(folder: Path) -> None:
    run = make_run(folder)
    spoil(run.weights("adapter") / "adapter_config.json")
    with pytest.raises(UserError, match="not those that were tuned"):
        found(folder, "run:demo")
    assert found(folder, "run:demo#base").adapter is None
    spoil(folder / "models" / "base" / "config.json")
    with pytest.raises(UserError, match="the base weights changed since run demo began"):
        found(folder, "run:demo#base")


def test_a_run_that_is_not_tuned_has_a_base(folder: Path) -> None:
    make_run(folder, tuned=False)
    assert found(folder, "run:demo#base").tokenizer is None
    with pytest.raises(UserError, match=r"not tuned yet; call 'whet tune' first, or take run:demo#base"):
        found(folder, "run:demo")


def test_a_scratch_run_without_weights_says_so(folder: Path) -> None:
    run = make_run(folder, tuned=False)
    experiment = run.manifest().experiment
    scratch = {"model": Model(scratch=SHAPE.model_copy(update={"context_tokens": 512})), "tune": Tune(method="scratch")}
    run.update(base=None, experiment=experiment.model_copy(update=scratch))
    with pytest.raises(UserError, match="made no weights yet"):
        found(folder, "run:demo#base")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run:dem", r"no run 'dem'.*did you mean 'demo'"),
        ("demo", r"the run of this name is run:demo"),
        ("{models}/bas", r"no such folder; did you mean 'base'"),
        ("{models}/base+{models}/adaptor", r"no such folder; did you mean 'adapter'"),
        ("{models}/base+{models}/base", r"holds no adapter_config.json"),
        ("{models}/base/config.json", r"is gguf:"),
        ("gguf:{models}/modle.gguf", r"no such GGUF file; did you mean 'model.gguf'"),
        ("gguf:~nobody-has-this/x.gguf", r"no such GGUF file"),
        ("http://host/v1#m", r"with the server"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(folder: Path, text: str, said: str) -> None:
    make_run(folder)
    (folder / "models" / "model.gguf").touch()
    with pytest.raises(UserError, match=said):
        found(folder, text.format(models=folder / "models"))


def test_what_the_hub_does_not_give_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(base: str, *, key: str | None = "model.base") -> Path:
        said = f"'{base}' is neither a directory nor a model that the hub gives: offline"
        raise UserError(said if key is None else f"{key}: {said}")

    monkeypatch.setattr(resolve, "locate", refuse)
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"^'models/bose' is neither .*offline; did you mean 'base'\?$"):
        found(folder, "models/bose")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000])
def test_names_that_no_file_can_have_are_not_there(name: str) -> None:
    assert not is_there(name)
