"""A merged model answers as base and adapter did."""

from pathlib import Path
from typing import Any

import pytest
import torch

from whetstone.errors import UserError
from whetstone.model_section import Scratch
from whetstone.models.adapter import add_adapter, load_adapter
from whetstone.models.fingerprint import digest_weights
from whetstone.models.load import load_template, load_weights
from whetstone.models.merge import merge
from whetstone.models.scratch import save_scratch
from whetstone.tune_section import Tune

SHAPE = Scratch(vocabulary_size=300, dim=64, layers=2, heads=4, feed_forward_dim=128, context_tokens=64)
CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its input and output embeddings are tied."""
    path = tmp_path_factory.mktemp("model")
    save_scratch(path, SHAPE, ["The cat sits on the mat."] * 3, seed=1)
    return path


def save_adapter(base: Path, folder: Path, tune: Tune) -> None:
    torch.manual_seed(1)
    adapted = add_adapter(load_weights(base, dtype="float32", device=CPU), tune)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    adapted.save_pretrained(folder)


def adapter_logits(base: Path, folder: Path) -> torch.Tensor:
    adapted = load_adapter(load_weights(base, dtype="float64", device=CPU), folder).double()
    with torch.no_grad():
        logits: torch.Tensor = adapted(IDS).logits
    return logits


def logits_of(folder: Path, dtype: str) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = load_weights(folder, dtype=dtype, device=CPU)(IDS).logits
    return logits


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dora": True},
        {"rslora": True},
        {"dora": True, "rslora": True},
        {"targets": ("q_proj", "lm_head")},
        {"targets": ("embed_tokens",)},
    ],
)
def test_merged_logits_are_those_of_the_adapter(options: dict[str, Any], base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", Tune(rank=4, **options))
    digest = merge(base, tmp_path / "adapter", tmp_path / "merged", torch.float64)
    assert digest == digest_weights(tmp_path / "merged") != digest_weights(base)
    merged, adapted = logits_of(tmp_path / "merged", "float64"), adapter_logits(base, tmp_path / "adapter")
    torch.testing.assert_close(merged, adapted, atol=1e-12, rtol=0)
    assert not torch.allclose(merged, logits_of(base, "float64"), atol=1e-2)


def test_the_sum_is_rounded_once(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", Tune(rank=4))
    merge(base, tmp_path / "adapter", tmp_path / "exact", torch.float32)
    merge(base, tmp_path / "adapter", tmp_path / "merged", torch.bfloat16)
    exact = load_weights(tmp_path / "exact", dtype="auto", device=CPU).state_dict()
    rounded = load_weights(tmp_path / "merged", dtype="auto", device=CPU).state_dict()
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)


def test_the_tokenizer_of_the_adapter_goes_along(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", Tune(rank=4))
    merge(base, tmp_path / "adapter", tmp_path / "bases", torch.float32)
    tuned, _ = load_template(base, "plain")
    tuned.tokenizer.save_pretrained(tmp_path / "adapter")
    merge(base, tmp_path / "adapter", tmp_path / "adapters", torch.float32)
    assert load_template(tmp_path / "bases", "auto")[0].hash == load_template(base, "auto")[0].hash
    assert load_template(tmp_path / "adapters", "auto")[0].hash == tuned.hash
    assert load_template(tmp_path / "adapters", "auto")[1] == load_template(base, "auto")[1]


def test_weights_that_are_not_finite_are_not_written(base: Path, tmp_path: Path) -> None:
    tune = Tune(rank=4)
    adapted = add_adapter(load_weights(base, dtype="float32", device=CPU), tune)
    next(parameter for parameter in adapted.parameters() if parameter.requires_grad).data.fill_(torch.nan)
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match="cannot be merged"):
        merge(base, tmp_path / "adapter", tmp_path / "merged", torch.float32)
    assert not (tmp_path / "merged").exists()
