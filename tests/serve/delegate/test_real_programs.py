"""The servers of llama-cpp-python and mlx-lm themselves: the answers are those of our engine."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model

from whetstone.data.example import Message
from whetstone.engine.api import Sampling
from whetstone.engine.open import open_engine
from whetstone.models.load import load_weights, locate
from whetstone.serve.delegate.delegate_backend import DelegateBackend
from whetstone.serve.delegate.http_backend import Probing
from whetstone.serve.delegate.llama_cpp import llama_cpp_program
from whetstone.serve.delegate.mlx import Mlx
from whetstone.serve.delegate.program import Program
from whetstone.serve.errors import ServeError
from whetstone.serve.question import Ending, Question
from whetstone.serve.worker.protocol import Opening

DEMO = "builtin:demo-base"
SENTENCES = ("She go home.", "The dog are barking", "Correct the sentence: I has a apple.", "Where is you?")
NEW_TOKENS = 24


def tuned(folder: Path) -> str:
    """The demonstration's base with an adapter of random weights on it."""
    torch.manual_seed(0)
    base = load_weights(locate(DEMO), dtype=torch.float32, device=torch.device("cpu"))
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(folder)
    return f"{DEMO}+{folder}"


def ours(ref: str, tmp_path: Path) -> list[tuple[str, str]]:
    """What torch says, and why it ended."""
    opened = open_engine(ref, runs=tmp_path)
    with contextlib.closing(opened):
        requests = [opened.request([Message("user", text)], max_new_tokens=NEW_TOKENS) for text in SENTENCES]
        return [(one.text, one.finish_reason) for one in opened.engine.generate(requests)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not condition():
            await asyncio.sleep(0.02)


async def answer(backend: DelegateBackend, text: str) -> tuple[str, str]:
    question = Question("demo", (Message("user", text),), NEW_TOKENS, Sampling(), seed=0)
    said = [one async for one in backend.ask(question)]
    assert isinstance(said[-1], Ending) and said[-1].usage.new_tokens > 0
    return "".join(one.text for one in said if not isinstance(one, Ending)).strip(), said[-1].finish_reason


def processes(command: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if command in line and "guard.py" not in " ".join(line):
            found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "command"), [(llama_cpp_program(None), "llama_cpp.server"), (Mlx(), "mlx_lm")], ids=["llama.cpp", "mlx"]
)
def test_says_what_ours_says(program: Program, command: str, tmp_path: Path) -> None:
    pytest.importorskip(command.partition(".")[0])
    ref = tuned(tmp_path / "adapter")
    expected = ours(ref, tmp_path)
    assert expected != ours(DEMO, tmp_path)

    async def test() -> None:
        opening = Opening((f"demo={ref}",), str(tmp_path), force=True)
        backend = DelegateBackend(program, opening, probing=Probing(every_s=0.2))
        await backend.start()
        try:
            with pytest.raises(ServeError) as caught:
                await answer(backend, "Hi")
            assert caught.value.status == 503
            await until(lambda: backend.state.phase == "ready")
            assert await asyncio.gather(*(answer(backend, text) for text in SENTENCES)) == expected
            with pytest.raises(ServeError) as caught:
                await answer(backend, "a <|endoftext|> b <|im_end|> c </s> d" + " word" * 200)
            assert caught.value.status == 400
            [process] = processes(command)
            process.kill()
            await until(lambda: backend.state.restarts == 1)
            await until(lambda: backend.state.phase == "ready")
            assert await answer(backend, SENTENCES[0]) == expected[0]
        finally:
            await backend.close()

    asyncio.run(test())
    assert processes(command) == []
