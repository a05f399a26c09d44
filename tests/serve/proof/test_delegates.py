"""Judged runs behind other programs: their answers have to be those that were judged, or nobody may ask."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from whetstone.data.example import Message
from whetstone.engine.api import Sampling
from whetstone.errors import UserError
from whetstone.serve.delegate.delegate_backend import DelegateBackend
from whetstone.serve.delegate.llama_cpp import llama_cpp_program
from whetstone.serve.delegate.mlx import Mlx
from whetstone.serve.delegate.order import Form, Prepare, Prepared
from whetstone.serve.delegate.program import Program
from whetstone.serve.delegate.ready_models import ready_models
from whetstone.serve.question import Ending, Question
from whetstone.serve.worker.protocol import Opening


def made(shop: Any, folder: Path, *refs: str, form: Form = "folders", force: bool = False) -> Prepared:
    order = Prepare(Opening(refs, str(shop.runs), force=force), form, str(folder), "an engine", same_tokens=False)
    return ready_models(order, lambda said: None)[0]


def test_a_run_and_its_base_share_their_weights(judged_shop: Any, tmp_path: Path) -> None:
    prepared = made(judged_shop, tmp_path, "run:greedy", "run:greedy#base")
    tuned, base = prepared.models
    assert (tuned.served.proof.verdict, tuned.refusal) == ("SHIP", None)
    assert tuned.adapter == str(judged_shop.run("greedy").weights("adapter")) and base.adapter is None
    assert tuned.served.usual.max_new_tokens == 6
    assert len(tuned.judged) == len(base.judged) == 10
    assert all(one.same_prompt for one in (*tuned.judged, *base.judged))
    assert [one.text for one in tuned.judged] != [one.text for one in base.judged]


def test_what_was_drawn_cannot_come_again(judged_shop: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="INCONCLUSIVE"):
        made(judged_shop, tmp_path, "run:drawn")
    assert made(judged_shop, tmp_path, "run:drawn", force=True).models[0].judged == ()


async def answer(backend: DelegateBackend, question: Question) -> str:
    said = [one async for one in backend.ask(question)]
    return "".join(one.text for one in said if not isinstance(one, Ending))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("program", [llama_cpp_program(None), Mlx()], ids=["llama.cpp", "mlx"])
def test_a_judged_run_is_served_by_another_program(judged_shop: Any, program: Program) -> None:
    async def test() -> None:
        backend = DelegateBackend(program, Opening(("demo=run:greedy",), str(judged_shop.runs)))
        await backend.start()
        try:
            await until(lambda: backend.state.phase in ("ready", "failed"))
            assert backend.state.last_error is None
            proof = backend.models["demo"].proof
            assert (proof.verdict, proof.replayed, proof.equal, proof.forced) == ("SHIP", 10, 10, None)
            question = Question("demo", (Message("user", "Where is the cat?"),), None, Sampling(), seed=0)
            assert await answer(backend, question) == await answer(backend, replace(question, max_new_tokens=6))
        finally:
            await backend.close()

    asyncio.run(test())
