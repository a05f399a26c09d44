"""Models as programs read them: what is written, what is refused, and prompts that a program would render otherwise."""

import json
from pathlib import Path

import pytest

from whetstone.data.example import Message
from whetstone.data.template import Template
from whetstone.errors import UserError
from whetstone.models.load import locate
from whetstone.serve.delegate.order import Form, Prepare, Prepared, Render
from whetstone.serve.delegate.ready_models import ready_models
from whetstone.serve.delegate.rendering import Rendering
from whetstone.serve.worker.protocol import Opening

DEMO = "builtin:demo-base"


def made(tmp_path: Path, *refs: str, form: Form = "folders", force: bool = True) -> tuple[Prepared, Template]:
    opening = Opening(refs, str(tmp_path / "runs"), force=force)
    return ready_models(Prepare(opening, form, str(tmp_path), "an engine", same_tokens=False), lambda said: None)


def test_folders_are_read_as_they_are(tmp_path: Path) -> None:
    prepared, template = made(tmp_path, f"demo={DEMO}")
    assert (prepared.path, prepared.context_tokens, prepared.dtype) == (str(locate(DEMO)), 128, "float32")
    assert Path(prepared.template).read_text() == template.tokenizer.chat_template
    assert template.end_of_turn_id in prepared.stop_ids
    served = prepared.models[0].served
    assert (served.name, served.engine, served.template_hash) == ("demo", "an engine", template.hash)
    assert served.sha256 and served.proof.forced and served.proof.verdict is None


def test_mlx_gets_a_folder_whose_configuration_says_all(tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm")
    prepared, template = made(tmp_path, DEMO, form="mlx")
    folder = Path(prepared.path)
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == 10000.0
    assert config["eos_token_id"] == list(prepared.stop_ids)
    assert (folder / "model-model.safetensors").is_symlink()
    assert (folder / "chat_template.jinja").read_text() == template.tokenizer.chat_template


@pytest.mark.parametrize(
    ("refs", "form", "match"),
    [
        (["http://127.0.0.1/v1#m"], "folders", "leave --backend out"),
        ([f"random:{DEMO}"], "folders", "leave --backend out"),
        (["gguf:a.gguf"], "mlx", "GGUF"),
        ([f"mlx:{DEMO}"], "folders", "mlx"),
        ([f"{DEMO}@int8"], "gguf", "as they are stored"),
        ([f"one={DEMO}", f"two={DEMO}"], "mlx", "start a server for each"),
    ],
)
def test_what_is_nothing_for_a_program(refs: list[str], form: Form, match: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"")
    refs = [ref.replace("a.gguf", str(tmp_path / "a.gguf")) for ref in refs]
    with pytest.raises(UserError, match=match):
        made(tmp_path, *refs, form=form)


def test_what_was_not_judged_needs_force(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--force"):
        made(tmp_path, DEMO, force=False)


def test_prompts_that_a_program_would_read_otherwise(tmp_path: Path) -> None:
    _, template = made(tmp_path, DEMO)
    rendering = Rendering(template, 128, same_tokens=True)
    turns = (Message("user", "She go home."),)
    assert rendering.rendered(Render(0, "demo", turns)).token_ids == tuple(template.prompt_ids(turns))
    assert rendering.rendered(Render(1, "demo", "She go")).token_ids
    end = template.tokenizer.convert_ids_to_tokens(template.end_of_turn_id)
    for prompt in (f"She {end} go", (Message("user", f"She {end} go"),)):
        refused = rendering.rendered(Render(2, "demo", prompt))
        assert refused.error and not refused.token_ids
        assert Rendering(template, 128, same_tokens=False).rendered(Render(3, "demo", prompt)).token_ids
    for prompt in ("word " * 200, "a" * 10_000):
        too_long = rendering.rendered(Render(4, "demo", prompt))
        assert (too_long.code, too_long.param) == ("context_length_exceeded", "prompt")
