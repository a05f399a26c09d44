"""llama.cpp's logits and answers are those of transformers, and nothing of an earlier request shows in a later one."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

pytest.importorskip("llama_cpp")
pytest.importorskip("gguf")

from whetstone.engine.api import Request
from whetstone.engine.llama_cpp import LlamaCppSource, llama_cpp_engine
from whetstone.errors import UserError
from whetstone.model_section import Scratch
from whetstone.models.gguf import export_gguf
from whetstone.models.load import BUILTIN_BASE, load_template, load_weights, locate
from whetstone.models.scratch import save_scratch

SHAPE = Scratch(vocabulary_size=300, dim=64, layers=2, heads=4, feed_forward_dim=128, context_tokens=1024)
PROMPT = tuple(range(5, 45))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_scratch(path, SHAPE, ["The cat sits on the mat."] * 3, seed=1)
    export_gguf(path, path / "model.gguf", "float32")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    return load_weights(folder, dtype="float32", device=torch.device("cpu"))


@pytest.fixture
def source(folder: Path) -> Iterator[LlamaCppSource]:
    opened = LlamaCppSource(folder / "model.gguf")
    yield opened
    opened.close()


def expected(model: PreTrainedModel, token_ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([token_ids])).logits[0, -1]
    return logits


def close(given: torch.Tensor, logits: torch.Tensor) -> bool:
    return torch.allclose(given, logits, atol=1e-4, rtol=0)


def test_a_prompt_longer_than_a_batch(source: LlamaCppSource, model: PreTrainedModel) -> None:
    token_ids = tuple(torch.randint(5, 270, (700,), generator=torch.Generator().manual_seed(1)).tolist())
    assert close(source.start(token_ids), expected(model, token_ids))
    assert close(source.advance(7), expected(model, (*token_ids, 7)))
    assert source.reused_tokens == 0


@pytest.mark.parametrize(
    ("second", "reused"),
    [
        ((*PROMPT, 9, 9), 40),
        (PROMPT, 39),
        (PROMPT[:20], 19),
        ((*PROMPT[:30], 99, 98), 30),
        ((99, *PROMPT), 0),
        ((*PROMPT, 8, 7), 41),
    ],
)
def test_what_begins_alike_is_not_computed_again(
    second: tuple[int, ...], reused: int, source: LlamaCppSource, model: PreTrainedModel
) -> None:
    source.start(PROMPT)
    source.advance(8)
    source.advance(9)
    assert close(source.start(second), expected(model, second))
    assert source.reused_tokens == reused
    assert close(source.advance(10), expected(model, (*second, 10)))


def test_logits_are_read_where_llama_cpp_wrote_them(source: LlamaCppSource) -> None:
    first = source.start(PROMPT)
    assert (first.dtype, first.dim()) == (torch.float32, 1)
    assert source.advance(5).data_ptr() == first.data_ptr()


def test_nothing_is_said_on_standard_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = LlamaCppSource(folder / "model.gguf")
    source.start(PROMPT)
    source.close()
    source.close()
    with pytest.raises(UserError):
        LlamaCppSource(folder / "config.json")
    assert capfd.readouterr() == ("", "")


def test_what_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        LlamaCppSource(tmp_path / "model.gguf")
    (tmp_path / "torn.gguf").write_bytes((folder / "model.gguf").read_bytes()[:30_000])
    with pytest.raises(UserError, match=r"torn\.gguf: llama\.cpp cannot read it \(.+\)"):
        LlamaCppSource(tmp_path / "torn.gguf")


def test_greedy_answers_are_those_of_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the shipped base and, where it is at hand, of another pretrained one."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from engine_agreement import ENGINES, measure

    folders = [locate(BUILTIN_BASE), *(Path(os.environ[name]) for name in ("WHETSTONE_STORIES",) if name in os.environ)]
    for folder in folders:
        found = measure(folder, ENGINES["llama.cpp"], prompts=100, max_new_tokens=16)
        assert found.n == 100
        assert found.same >= 95
        assert found.explained


def test_an_engine_answers_several(folder: Path, model: PreTrainedModel) -> None:
    template, _ = load_template(folder, "auto")
    engine = llama_cpp_engine(folder / "model.gguf", template, context_tokens=64, threads=1)
    first, second = engine.generate([Request(PROMPT, 5), Request((*PROMPT, 6), 5)])
    engine.close()
    for prompt, completion in ((PROMPT, first), ((*PROMPT, 6), second)):
        answer = model.generate(torch.tensor([prompt]), max_new_tokens=5, do_sample=False)[0, len(prompt) :]
        assert list(completion.token_ids) == answer.tolist()
    assert (first.usage.reused_tokens, second.usage.reused_tokens) == (0, 40)


def test_an_answer_ends_where_the_settings_of_the_model_end_it(
    folder: Path, model: PreTrainedModel, tmp_path: Path
) -> None:
    answer = model.generate(torch.tensor([PROMPT]), max_new_tokens=5, do_sample=False)[0, len(PROMPT) :].tolist()
    shutil.copytree(folder, tmp_path / "model")
    settings = json.loads((folder / "generation_config.json").read_text())
    ends = [settings["eos_token_id"], 290, 291, 292, answer[2]]
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": ends}))
    export_gguf(tmp_path / "model", tmp_path / "model.gguf", "float32")
    engine = llama_cpp_engine(tmp_path / "model.gguf", load_template(folder, "auto")[0])
    completion = engine.generate([Request(PROMPT, 5)])[0]
    engine.close()
    assert list(completion.token_ids) == answer[: answer.index(answer[2]) + 1]
    assert completion.finish_reason == "stop"


def test_a_request_longer_than_the_context_is_refused(folder: Path) -> None:
    template, _ = load_template(folder, "auto")
    engine = llama_cpp_engine(folder / "model.gguf", template, context_tokens=44)
    with pytest.raises(UserError, match="exceed the context of 44"):
        engine.generate([Request(PROMPT, 5)])
    assert len(engine.generate([Request(PROMPT, 4)])[0].token_ids) <= 4
    engine.close()


def test_threads_are_those_that_torch_would_use(folder: Path) -> None:
    source = LlamaCppSource(folder / "model.gguf")
    assert source.threads == torch.get_num_threads()
    source.close()
