"""GGUF files: the template they are asked with, how long their context is, and tokenizers that cannot be trusted."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp")
pytest.importorskip("gguf")

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from whetstone.data.example import Message
from whetstone.engine import gguf_file
from whetstone.engine.gguf_file import read_gguf
from whetstone.engine.open import open_engine
from whetstone.errors import UserError
from whetstone.models.gguf import export_gguf
from whetstone.models.load import BUILTIN_BASE, load_template, locate
from whetstone.models.scratch import train_tokenizer

ASKED = (Message("user", "Correct: She go to school ."),)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    export_gguf(locate(BUILTIN_BASE), file, "float32")
    return file


@pytest.fixture
def alone(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(exported, tmp_path / "model.gguf"))


def test_without_a_tokenizer_beside_it_the_files_own_is_read(alone: Path) -> None:
    read, (template, _) = read_gguf(alone, "auto"), load_template(locate(BUILTIN_BASE), "auto")
    assert read.template.prompt_ids(ASKED) == template.prompt_ids(ASKED)
    assert read.template.end_of_turn_id == template.end_of_turn_id
    assert read.context_tokens == 128


def test_a_tokenizer_beside_it_is_taken(alone: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(locate(BUILTIN_BASE) / name, alone.parent / name)
    assert read_gguf(alone, "auto").template.hash == load_template(locate(BUILTIN_BASE), "auto")[0].hash


def test_a_tokenizer_of_another_model_is_refused(alone: Path) -> None:
    texts = [f"word{index} and another{index * 7}" for index in range(400)]
    train_tokenizer(texts, vocabulary_size=900).save_pretrained(alone.parent)
    with pytest.raises(UserError, match=r"is of another model than model\.gguf"):
        read_gguf(alone, "auto")


def test_a_tokenizer_that_splits_otherwise_than_llama_cpp_is_refused(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = AutoTokenizer.from_pretrained(alone.parent, gguf_file=alone.name)
    other.backend_tokenizer.normalizer = None
    splits = [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(" ", "isolated")]
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(False)])
    monkeypatch.setattr(gguf_file, "_own_tokenizer", lambda file: other)
    with pytest.raises(UserError, match=r"becomes other tokens\); put the model's tokenizer.json"):
        read_gguf(alone, "auto")


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(UserError, match=r"llama\.cpp cannot read it"):
        read_gguf(tmp_path / "model.gguf", "auto")


def test_it_opens_and_answers_like_its_source(alone: Path, tmp_path: Path) -> None:
    answers = []
    for ref in (f"gguf:{alone}", BUILTIN_BASE):
        opened = open_engine(ref, runs=tmp_path / "runs", device="cpu")
        answers.append(opened.engine.generate([opened.request(ASKED, max_new_tokens=20)])[0].token_ids)
        assert opened.context_tokens == 128
        opened.close()
    assert answers[0] == answers[1]
