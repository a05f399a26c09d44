"""What was judged is what comes out of the socket."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from real_server import serving
from whetstone.evaluate.sample import BASE, TUNED
from whetstone.files import read_jsonl


@pytest.mark.timeout(200)
def test_all_judged_answers_come_with_the_judged_tokens(judged_shop: Any, tmp_path: Path) -> None:
    run = judged_shop.run("greedy")
    examples = read_jsonl(run.samples / "examples.jsonl")
    arguments = ("run:greedy", "base=run:greedy#base", "--runs", str(judged_shop.runs))
    with serving(*arguments, folder=tmp_path) as server, httpx.Client(timeout=60) as client:
        for name, arm in (("greedy", TUNED), ("base", BASE)):
            judged = {row["example"]: row for row in read_jsonl(run.samples / f"{arm}.jsonl")}
            for example in examples:
                # Neither temperature nor length is said: they are as judged.
                body = {"model": name, "messages": example["messages"], "return_token_ids": True}
                [choice] = client.post(f"{server.url}/v1/chat/completions", json=body).json()["choices"]
                assert choice["token_ids"] == judged[example["id"]]["token_ids"]
                assert choice["finish_reason"] == judged[example["id"]]["finish_reason"]
        card = client.get(f"{server.url}/v1/models/greedy/card").json()
    assert card["proof"]["verdict"] == "SHIP" and card["proof"]["forced"] is None
    assert card["proof"]["equal"] == card["proof"]["replayed"] > 0
    assert "Where is" not in json.dumps(card)
