"""Where weights come from, and how what cannot be loaded is said."""

import json
from pathlib import Path

import pytest
import torch

from whetstone.errors import UserError
from whetstone.model_section import Scratch
from whetstone.models.adapter import add_adapter, load_adapter
from whetstone.models.device import choose_device, peak_memory_bytes
from whetstone.models.fingerprint import digest_weights, record_weights
from whetstone.models.load import BUILTIN_BASE, LanguageModel, end_ids, load_model, load_template, locate
from whetstone.models.scratch import save_scratch
from whetstone.tune_section import Tune

SHAPE = Scratch(vocabulary_size=300, dim=16, layers=2, heads=2, feed_forward_dim=32, context_tokens=64)
TEXTS = ["The cat sits on the mat.", "She walks to school every day."] * 3
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    save_scratch(path, SHAPE, TEXTS, seed=1)
    return path


def load(folder: Path) -> LanguageModel:
    return load_model(folder, template="auto", dtype="float32", device=CPU)


def test_scratch_models_depend_on_the_seed_alone(folder: Path, tmp_path: Path) -> None:
    save_scratch(tmp_path / "same", SHAPE, TEXTS, seed=1)
    save_scratch(tmp_path / "other", SHAPE, TEXTS, seed=2)
    assert digest_weights(folder) == digest_weights(tmp_path / "same") != digest_weights(tmp_path / "other")
    assert (folder / "tokenizer.json").read_bytes() == (tmp_path / "same" / "tokenizer.json").read_bytes()


def test_a_saved_model_can_be_asked(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.model.config.hidden_size == 16
    assert loaded.template.decode(loaded.template.answer_ids("The cat sits.")) == "The cat sits."
    assert not loaded.model.training


def test_an_adapter_changes_the_answers_and_can_be_taken_off(folder: Path, tmp_path: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    base = load(folder).model
    before = base(ids).logits
    adapted = add_adapter(load(folder).model, Tune(rank=4))
    trainable = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)
    assert torch.equal(adapted(ids).logits, before)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    adapted.save_pretrained(tmp_path / "adapter")
    again = load_adapter(load(folder).model, tmp_path / "adapter")
    assert torch.allclose(again(ids).logits, adapted(ids).logits)
    assert not torch.allclose(again(ids).logits, before)
    with again.disable_adapter():
        assert torch.equal(again(ids).logits, before)


def test_records_count_and_identify(folder: Path) -> None:
    record = record_weights("here", folder, add_adapter(load(folder).model, Tune(rank=4)))
    assert record.origin == "here"
    assert 0 < record.trainable_parameters < record.parameters
    assert record.sha256 == digest_weights(folder)


@pytest.mark.parametrize("damage", ["no weights", "torn weights", "no config", "foreign config"])
def test_what_cannot_be_loaded_is_one_line(folder: Path, damage: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "no weights":
        weights.unlink()
    elif damage == "torn weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "no config":
        config.unlink()
    else:
        config.write_text('{"model_type": "unheard-of"}')
    with pytest.raises(UserError, match=str(folder)):
        load(folder)
    if damage == "no weights":
        with pytest.raises(UserError, match="safetensors"):
            digest_weights(folder)


def test_pickled_weights_are_never_read(folder: Path) -> None:
    torch.save(load(folder).model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError):
        load(folder)


def test_a_plain_answer_ends_with_the_token_that_the_model_ends_with(folder: Path) -> None:
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": 3}))
    plain = load_model(folder, template="plain", dtype="float32", device=CPU)
    assert plain.template.end_of_turn_id == 3
    assert plain.template.answer_ids("x")[-1] == 3
    assert load(folder).template.end_of_turn_id != 3


@pytest.mark.parametrize("choice", ["auto", "plain"])
def test_the_template_is_read_without_weights(folder: Path, choice: str) -> None:
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [3, 4]}))
    loaded = load_model(folder, template=choice, dtype="float32", device=CPU)
    (folder / "model.safetensors").unlink()
    template, ends = load_template(folder, choice)
    assert ends == end_ids(loaded.model) == [3, 4]
    assert template.hash == loaded.template.hash
    assert template.answer_ids("The cat sits.") == loaded.template.answer_ids("The cat sits.")


def test_without_generation_settings_the_config_names_the_end(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 4}))
    assert load_template(folder, "plain")[1] == end_ids(load(folder).model) == [4]
    assert load_template(folder, "plain")[0].end_of_turn_id == 4


def test_unknown_targets_are_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"tune\.targets"):
        add_adapter(load(folder).model, Tune(targets=("no_such_layer",)))


def test_a_directory_is_itself_and_the_shipped_base_is_there(folder: Path) -> None:
    assert locate(str(folder)) == folder
    shipped = locate(BUILTIN_BASE)
    assert sum(file.stat().st_size for file in shipped.glob("*.safetensors")) <= 8e6
    assert load(shipped).template.decode([]) == ""


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="'cuda' is not available"):
            choose_device("cuda")
    assert peak_memory_bytes(CPU) > 50e6
