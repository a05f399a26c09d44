"""A run as one file of llama.cpp, asked again."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from whetstone.cli.main import app
from whetstone.errors import UserError
from whetstone.models.load import BUILTIN_BASE, load_weights, locate

pytest.importorskip("llama_cpp", reason="pip install 'whetstone[gguf]'")
pytest.importorskip("gguf", reason="pip install 'whetstone[gguf]'")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "adapter"
    torch.manual_seed(0)
    base = load_weights(locate(BUILTIN_BASE), dtype="float32", device=torch.device("cpu"))
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    tuned.save_pretrained(folder)
    return folder


def asked(ref: str, folder: Path) -> list[str]:
    prompts = folder / "prompts.jsonl"
    prompts.write_text('{"prompt": "She go to school ."}\n{"prompt": "The cats sleeps ."}\n')
    out = folder / f"{len(list(folder.glob('*.out')))}.out"
    command = ["generate", ref, str(prompts), "--out", str(out), "--max-new-tokens", "12"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    return [json.loads(line)["text"] for line in out.read_text().splitlines()]


def test_an_adapter_becomes_one_file_that_answers_alike(adapter: Path, tmp_path: Path) -> None:
    file = tmp_path / "model" / "tuned.gguf"
    ref = f"{BUILTIN_BASE}+{adapter}"
    done = CliRunner().invoke(app, ["export", ref, str(file), "--dtype", "float32", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["bytes"] == file.stat().st_size
    assert (file.parent / "tokenizer.json").exists()
    assert [path.name for path in file.parent.glob(".export-*")] == []
    answers = asked(f"gguf:{file}", tmp_path)
    assert answers == asked(ref, tmp_path)
    assert answers != asked(BUILTIN_BASE, tmp_path)


def test_a_folder_that_holds_another_tokenizer_is_left_alone(tmp_path: Path) -> None:
    shutil.copyfile(locate(BUILTIN_BASE) / "tokenizer.json", tmp_path / "tokenizer.json")
    with (tmp_path / "tokenizer.json").open("a") as file:
        file.write("\n")
    done = CliRunner().invoke(app, ["export", BUILTIN_BASE, str(tmp_path / "base.gguf")])
    assert isinstance(done.exception, UserError)
    assert "is of another model" in str(done.exception)
    assert not (tmp_path / "base.gguf").exists()


@pytest.mark.parametrize(
    ("ref", "file", "said"),
    [
        ("http://127.0.0.1:1/v1#m", "a.gguf", "give a run, a model folder or BASE.ADAPTER"),
        (f"{BUILTIN_BASE}@int8", "a.gguf", "how it is rounded says --dtype"),
        (BUILTIN_BASE, "a.bin", r"call it a\.bin\.gguf"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(ref: str, file: str, said: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", ref, str(tmp_path / file)])
    assert isinstance(done.exception, UserError)
    with pytest.raises(UserError, match=said):
        raise done.exception
