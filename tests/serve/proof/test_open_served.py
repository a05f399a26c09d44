"""Models of runs that were really judged, opened to be served."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from whetstone.engine.torch_engine import TorchEngine
from whetstone.errors import UserError
from whetstone.evaluate.sanity import SANITY_FILE
from whetstone.files import read_json, write_json
from whetstone.models.fingerprint import digest_weights
from whetstone.serve.proof.open_served import Served, open_served
from whetstone.serve.served_model import ServedModel, Usual

Opening = Callable[..., list[Served]]


@pytest.fixture
def opening() -> Iterator[Opening]:
    """Opens models, and closes them when the test is over."""
    served: list[Served] = []

    def opened(shop: Any, *refs: str, force: bool = False, **options: Any) -> list[Served]:
        options = {"stage": lambda said: None, "device": "cpu", **options}
        found = open_served(refs, runs=shop.runs, force=force, **options)
        served.extend(found)
        return found

    yield opened
    for one in served:
        one.opened.close()


def test_what_was_judged_is_served_with_its_proof(judged_shop: Any, opening: Opening) -> None:
    stages: list[str] = []
    tuned, base = opening(judged_shop, "run:greedy", "plain=run:greedy#base", stage=stages.append)
    assert stages == [
        "computing the verdict of run greedy from its rows",
        "reading the weights of greedy, plain",
        "asking greedy again what it was judged by",
        "asking plain again what it was judged by",
    ]
    run = judged_shop.run("greedy")
    manifest = run.manifest()
    model = tuned.model
    assert (model.name, model.ref, model.engine, model.device) == ("greedy", "run:greedy", "torch", "cpu")
    assert (model.sha256, model.adapter_sha256) == (
        digest_weights(judged_shop.base),
        digest_weights(run.weights("adapter")),
    )
    assert (model.proof.verdict, model.proof.judged_at) == ("SHIP", manifest.judgement.frozen_at)
    assert (model.proof.replayed, model.proof.equal, model.proof.forced) == (10, 10, None)
    assert any(reason.startswith("Truncated better than base: ") for reason in model.proof.reasons)
    assert model.usual == Usual(temperature=0, top_p=1, max_new_tokens=6)
    assert model.system_prompt == "Answer in a word."
    assert model.validation is not None
    assert model.validation.max_characters == 99
    assert (model.context_tokens, model.dtype, model.template_hash) == (128, "float32", manifest.tuning.template_hash)
    assert model.experiment is not None
    assert model.experiment["name"] == "greedy"
    assert model.created == 1768205635
    assert [rate.samples for rate in model.judged_rates] == [27] * 5
    assert ServedModel.model_validate_json(model.model_dump_json()) == model
    assert (base.model.name, base.model.adapter_sha256, base.model.proof.equal) == ("plain", None, 10)
    assert base.model.judged_rates != model.judged_rates
    assert base.opened.engine is tuned.opened.engine


def test_answers_that_were_drawn_several_times_are_drawn_again(judged_shop: Any, opening: Opening) -> None:
    tuned, base = opening(judged_shop, "run:drawn", "run:drawn#base", force=True)
    for one in (tuned, base):
        assert (one.model.proof.replayed, one.model.proof.equal) == (9, 9)
        assert str(one.model.proof.forced).startswith("INCONCLUSIVE: Truncated better than base: ")
    assert (tuned.model.proof.verdict, base.model.proof.verdict) == ("INCONCLUSIVE", None)
    assert base.model.proof.reasons == ("It is the base of a judgement whose verdict is INCONCLUSIVE.",)
    assert tuned.model.usual == Usual(temperature=0.8, top_p=0.9, max_new_tokens=6)
    assert {rate.samples for rate in tuned.model.judged_rates} == {54}


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("run:drawn", "INCONCLUSIVE: Truncated better than base: "),
        ("run:tuned", "not judged; call 'whet compare tuned'"),
        ("builtin:demo-base", "not judged: it is of no run"),
    ],
)
def test_what_may_not_be_served_is_refused_before_weights_are_read(
    judged_shop: Any, opening: Opening, monkeypatch: pytest.MonkeyPatch, ref: str, said: str
) -> None:
    monkeypatch.setattr("whetstone.serve.proof.open_served.open_engines", None)
    with pytest.raises(UserError) as caught:
        opening(judged_shop, "run:greedy", ref)
    assert str(caught.value).startswith(f"{ref}: not served: {said}")
    assert "--force" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_force_says_what_it_passed_over(judged_shop: Any, opening: Opening) -> None:
    (bare,) = opening(judged_shop, str(judged_shop.base), force=True)
    assert bare.model.proof.forced == "not judged: it is of no run; tune and judge it, and serve run:NAME"
    assert (bare.model.proof.verdict, bare.model.proof.replayed, bare.model.judged_rates) == (None, 0, ())
    assert (bare.model.usual, bare.model.system_prompt, bare.model.experiment) == (Usual(), None, None)


def test_random_weights_need_the_test_mode_and_nothing_else_does(judged_shop: Any, opening: Opening) -> None:
    ref = f"random:{judged_shop.base}"
    for force in (False, True):
        with pytest.raises(UserError, match="only with --test-mode"):
            opening(judged_shop, ref, force=force)
    (noise,) = opening(judged_shop, ref, test_mode=True)
    assert noise.model.random_weights
    assert noise.model.proof.forced == "random weights, whose answers mean nothing"
    with pytest.raises(UserError, match="not judged"):
        opening(judged_shop, "run:tuned", test_mode=True)


def test_another_answer_on_disk_is_seen(shop: Any, opening: Opening) -> None:
    def other(index: int, row: dict[str, Any]) -> None:
        if index in (2, 7, 20):
            row["token_ids"][0] ^= 1

    shop.edit_rows("greedy", "tuned", other)
    with pytest.raises(UserError, match=r"^run:greedy: not served: 2 of 10 judged answers come out otherwise, "):
        opening(shop, "run:greedy")
    (forced,) = opening(shop, "run:greedy", force=True)
    rows = (shop.run("greedy").samples / "tuned.jsonl").read_text().splitlines()
    assert (forced.model.proof.verdict, forced.model.proof.replayed, forced.model.proof.equal) == ("SHIP", 10, 8)
    assert f"'{json.loads(rows[2])['example']}' first" in str(forced.model.proof.forced)
    (base,) = opening(shop, "run:greedy#base")
    assert base.model.proof.forced is None


def test_a_text_that_its_tokens_do_not_say_is_seen(shop: Any, opening: Opening) -> None:
    def better(index: int, row: dict[str, Any]) -> None:
        row["text"] = "Here."

    shop.edit_rows("greedy", "tuned", better)
    with pytest.raises(UserError, match="10 of 10 judged answers come out otherwise"):
        opening(shop, "run:greedy")


def test_a_refused_model_leaves_no_engine_behind(shop: Any, opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[TorchEngine] = []
    close = TorchEngine.close

    def counted(engine: TorchEngine) -> None:
        closed.append(engine)
        close(engine)

    monkeypatch.setattr(TorchEngine, "close", counted)
    for arm in ("base", "base-again", "copy-input", "tuned"):
        shop.edit_rows("greedy", arm, lambda index, row: row.update(prompt_hash="0" * 16))
    with pytest.raises(UserError, match="10 prompts have other tokens: template or tokenizer changed"):
        opening(shop, "run:greedy#base", "run:greedy", force=False)
    assert closed


def test_what_differs_here_is_named(shop: Any, opening: Opening) -> None:
    run = shop.run("greedy")
    judgement = run.manifest().judgement
    packages = {**judgement.packages, "torch": "1.0.0"}
    changed = judgement.model_copy(update={"packages": packages, "device": "cuda:0"})
    run.update(judgement=changed)

    def other(index: int, row: dict[str, Any]) -> None:
        row.update(judgement=changed.fingerprint(), token_ids=[5])

    def same(index: int, row: dict[str, Any]) -> None:
        row.update(judgement=changed.fingerprint())

    for arm in ("base", "base-again", "copy-input", "tuned"):
        shop.edit_rows("greedy", arm, other if arm == "tuned" else same)
    sanity = run.samples / SANITY_FILE
    write_json(sanity, {**read_json(sanity), "judgement": changed.fingerprint()})
    with pytest.raises(UserError, match=r"torch is 2\S*, judged with 1\.0\.0; computed on cpu, judged on cuda:0"):
        opening(shop, "run:greedy@bfloat16")
    with pytest.raises(UserError, match="the weights are bfloat16, judged were float32"):
        opening(shop, "run:greedy@bfloat16")


def test_changed_weights_are_refused_by_any_force(shop: Any, opening: Opening, tmp_path: Path) -> None:
    run = shop.run("greedy")
    config = run.weights("adapter") / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 4 '))
    for force in (False, True):
        with pytest.raises(UserError, match="the weights are not those that were tuned"):
            opening(shop, "run:greedy", force=force)


def test_merged_weights_are_served_when_they_answer_alike(shop: Any, opening: Opening) -> None:
    (merged,) = opening(shop, "run:greedy#merged")
    assert (merged.model.name, merged.model.proof.equal, merged.model.proof.forced) == ("greedy-merged", 10, None)


def test_a_gguf_file_is_known_by_what_it_was_made_of(shop: Any, opening: Opening, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    from whetstone.models.export import export_model

    export_model("run:greedy", tmp_path / "tuned" / "word.gguf", "float32", shop.runs)
    export_model("run:greedy#base", tmp_path / "base" / "plain.gguf", "float32", shop.runs)
    files = [f"gguf:{tmp_path}/tuned/word.gguf", f"gguf:{tmp_path}/base/plain.gguf"]
    # Tensors may be summed in another order, and so small a model has many near ties.
    tuned, base = opening(shop, *files, force=True)
    assert (tuned.model.name, tuned.model.engine, tuned.model.device) == ("word", "llama.cpp", None)
    for one, other in ((tuned, base), (base, tuned)):
        assert one.model.proof.equal >= 8
        assert one.model.judged_rates != other.model.judged_rates
    assert (tuned.model.proof.verdict, base.model.proof.verdict) == ("SHIP", None)
    shutil.rmtree(shop.runs / "greedy")
    shutil.rmtree(shop.runs / "drawn")
    with pytest.raises(UserError, match="not judged: it is of no run"):
        opening(shop, files[0])


def test_a_restart_computes_no_verdict_but_asks_again(shop: Any, opening: Opening) -> None:
    (first,) = opening(shop, "run:greedy")
    stages: list[str] = []
    earlier = {"greedy": first.model.proof}
    (again,) = opening(shop, "run:greedy", earlier=earlier, stage=stages.append)
    assert again.model == first.model
    assert stages == ["reading the weights of greedy", "asking greedy again what it was judged by"]
    shop.edit_rows("greedy", "tuned", lambda index, row: row.update(token_ids=[5]))
    with pytest.raises(UserError, match="10 of 10 judged answers"):
        opening(shop, "run:greedy", earlier=earlier)
