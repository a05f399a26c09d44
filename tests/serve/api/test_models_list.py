"""What clients are told of the models, and adapters that come and go."""

import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import NotFoundError

from scripted_backend import ScriptedBackend, model_named
from whetstone.serve.backend import BackendState
from whetstone.serve.openai.models import ModelCard, ModelEntry, ModelList
from whetstone.serve.served_model import JudgedRate, Proof, ServedModel, Usual

Start = Callable[..., Any]


def judged() -> ServedModel:
    return model_named("demo").model_copy(
        update={
            "sha256": "3f" * 32,
            "adapter_sha256": "a7" * 32,
            "template_hash": "5e" * 8,
            "system_prompt": "A secret way to answer.",
            "usual": Usual(max_new_tokens=40),
            "proof": Proof(verdict="SHIP", reasons=("better than base",), judged_at="2026", replayed=8, equal=8),
            "experiment": {"name": "demo", "data": {"system": "A secret way to answer."}, "arms": [{"n": 1}]},
            "judged_rates": (JudgedRate(name="empty", judged=1, samples=300, window=100, low=0, high=4),),
        }
    )


def test_models_are_listed(serving: Start) -> None:
    server = serving(ScriptedBackend("b", models={"demo": judged()}), fallbacks=[ScriptedBackend("demo", "spare")])
    models = server.client().models.list().data
    assert [model.id for model in models] == ["demo", "spare"]
    assert (models[0].object, models[0].owned_by) == ("model", "whetstone")
    assert models[0].model_dump()["whetstone"]["verdict"] == "SHIP"
    ModelList.model_validate_json(httpx.get(f"{server.url}/v1/models").text, extra="forbid")


def test_a_model_is_told(serving: Start) -> None:
    server = serving(ScriptedBackend(models={"demo": judged()}))
    model = server.client().models.retrieve("demo").model_dump()
    assert model["id"] == "demo"
    assert model["whetstone"]["fingerprint"] == server.ask().json()["system_fingerprint"]
    with pytest.raises(NotFoundError):
        server.client().models.retrieve("nope")


def test_a_card_tells_the_proof_and_no_secrets(serving: Start) -> None:
    server = serving(ScriptedBackend(models={"demo": judged()}))
    response = httpx.get(f"{server.url}/v1/models/demo/card")
    ModelCard.model_validate_json(response.text, extra="forbid")
    card = response.json()
    assert (card["verdict"], card["reasons"], card["proof"]["equal"]) == ("SHIP", ["better than base"], 8)
    assert card["hashes"]["weights_sha256"] == "3f" * 32
    assert card["hashes"]["adapter_sha256"] == "a7" * 32
    prompt = hashlib.sha256(b"A secret way to answer.").hexdigest()
    assert card["hashes"]["system_prompt_sha256"] == prompt
    assert card["recipe"] == {"name": "demo", "data": {"system": f"sha256:{prompt}"}, "arms": [{"n": 1}]}
    assert card["usual"] == {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 40}
    assert "secret" not in response.text


@pytest.mark.parametrize("name", ["org/model", "run:demo#3", "a b", "ä/ö", "..", "../../etc/passwd", "x%2Fy", "card"])
def test_names_are_looked_up_and_nothing_else(serving: Start, name: str) -> None:
    server = serving(ScriptedBackend(name))
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())
    for path in (f"/v1/models/{quoted}", f"/v1/models/{quoted}/card"):
        assert httpx.get(f"{server.url}{path}").json()["id"] == name
        missing = httpx.get(f"{server.url}{path.replace('models/', 'models/%2e%2e%2f')}")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    if ".." not in name:  # the client itself refuses to say those
        assert server.client().models.retrieve(name).id == name


def test_models_that_are_not_known_yet(serving: Start) -> None:
    backend = ScriptedBackend(models={})
    backend.state = BackendState("starting", "loading weights", retry_after_s=2.0)
    server = serving(backend)
    assert server.client().models.list().data == []
    response = httpx.get(f"{server.url}/v1/models/demo")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")


def test_adapters_come_and_go(serving: Start) -> None:
    server = serving(ScriptedBackend())
    loaded = server.post("/v1/adapters", {"name": "new", "source": "run:new"})
    assert loaded.status_code == 201
    assert ModelEntry.model_validate_json(loaded.text, extra="forbid").id == "new"
    assert server.ask(model="new").json()["model"] == "new"
    again = server.post("/v1/adapters", {"name": "new", "source": "run:new"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "name_taken")
    gone = httpx.delete(f"{server.url}/v1/adapters/new")
    assert (gone.status_code, gone.json()) == (200, {"id": "new", "object": "model", "deleted": True})
    assert httpx.delete(f"{server.url}/v1/adapters/new").status_code == 404
    assert server.ask(model="new").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"name": "new"}, 400, "source"),
        ({"name": "../new", "source": "x"}, 400, "name"),
        ({"name": "new", "source": ""}, 400, "source"),
        ({"name": "new", "source": "x", "backend": "nobody"}, 404, "backend"),
        ({"name": "new", "sorce": "x"}, 400, "sorce"),
    ],
)
def test_adapters_that_are_not_loaded(serving: Start, body: dict[str, str], status: int, param: str) -> None:
    response = serving(ScriptedBackend()).post("/v1/adapters", body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
