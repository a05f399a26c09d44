"""What requests call a model."""

import pytest

from whetstone.errors import UserError
from whetstone.serve.proof.names import name_models


def names(*arguments: str, there: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    return [(one.name, one.ref) for one in name_models(arguments, there.__contains__)]


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("run:demo", "demo"),
        ("run:demo#base", "demo-base"),
        ("run:demo#merged@int8", "demo-merged-int8"),
        ("builtin:demo-base", "demo-base"),
        ("gguf:models/tiny.q8_0.gguf", "tiny.q8_0"),
        ("org/name", "name"),
        ("./some folder/my model", "my-model"),
        ("base+runs/demo/adapter@bfloat16", "base-adapter-bfloat16"),
        ("mlx:run:demo", "demo-mlx"),
        ("random:builtin:demo-base", "random-demo-base"),
        ("https://host/v1#org/gpt", "gpt"),
        ("https://host/v1#" + "x" * 99, "x" * 64),
        ("https://host/v1#///", "model"),
    ],
)
def test_a_model_suggests_its_name(ref: str, name: str) -> None:
    assert names(ref, there=("./some folder/my model",)) == [(name, ref)]


def test_a_name_may_be_given() -> None:
    assert names("grammar=run:demo#base", "b=gguf:a=b.gguf") == [("grammar", "run:demo#base"), ("b", "gguf:a=b.gguf")]


def test_a_path_that_is_there_wins() -> None:
    assert names("lr=2", there=("lr=2",)) == [("lr-2", "lr=2")]
    assert names("lr=2@int8", there=("lr=2",)) == [("lr-2-int8", "lr=2@int8")]
    assert names("lr=2+a", there=("lr=2",)) == [("lr-2-a", "lr=2+a")]
    assert names("lr=2", there=("2",)) == [("lr", "2")]
    assert names("gguf:a=b.gguf") == [("a-b", "gguf:a=b.gguf")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run:demo", "demo=run:other"], "'run:demo' and 'run:other' would both be called 'demo'.*write NAME=REF"),
        (["run:a", "run:a"], "both be called 'a'"),
        (["my model=run:demo"], "cannot call a model 'my model'"),
        (["=run:demo"], "cannot call a model ''"),
        (["x="], "names no model"),
        (["x=rum:demo"], "did you mean 'run'"),
    ],
)
def test_what_cannot_be_a_name_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        names(*arguments)
