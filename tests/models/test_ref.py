"""Names of models: what each means, that they are kept as they are written, and what wrong ones answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.errors import UserError
from whetstone.models.ref import (
    Gguf,
    Mlx,
    ModelRef,
    RandomWeights,
    RunModel,
    Server,
    Weights,
    parse_ref,
)

MEANT: list[tuple[str, ModelRef]] = [
    ("org/name", Weights("org/name")),
    ("gpt2", Weights("gpt2")),
    ("./a folder/base", Weights("./a folder/base")),
    (r"C:\models\base", Weights(r"C:\models\base")),
    (r"C:\models\base+D:\tuned here@nf4", Weights(r"C:\models\base", r"D:\tuned here", "nf4")),
    ("builtin:demo-base", Weights("builtin:demo-base")),
    ("builtin:demo-base+runs/x/adapter@int8", Weights("builtin:demo-base", "runs/x/adapter", "int8")),
    ("models@home/base", Weights("models@home/base")),
    ("models@home/base@float32", Weights("models@home/base", None, "float32")),
    ("run:demo", RunModel("demo")),
    ("run:demo@bfloat16", RunModel("demo", "tuned", "bfloat16")),
    ("run:demo.2#base@nf4", RunModel("demo.2", "base", "nf4")),
    ("run:demo#merged", RunModel("demo", "merged")),
    ("random:org/name@bfloat16", RandomWeights("org/name", "bfloat16")),
    ("gguf:~/my models/a#b+c.gguf", Gguf("~/my models/a#b+c.gguf")),
    ("mlx:org/name+adapter", Mlx(Weights("org/name", "adapter"))),
    ("mlx:run:demo", Mlx(RunModel("demo"))),
    ("http://localhost:8000/v1#org/name@2#q4", Server("http://localhost:8000/v1", "org/name@2#q4")),
    ("https://[::1]:80#m", Server("https://[::1]:80", "m")),
]


@pytest.mark.parametrize(("text", "meant"), MEANT)
def test_names_mean_what_the_table_says(text: str, meant: ModelRef) -> None:
    assert parse_ref(text) == meant
    assert str(meant) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no model"),
        (" org/name", "names no model"),
        ("org/name\n", "names no model"),
        ("org/name@bf16", "'@bf16' is no precision.*did you mean 'bfloat16'"),
        ("run:demo@int9", "did you mean 'int8'"),
        ("run:demo#bas", "'#bas' is no part of a run.*did you mean 'base'"),
        ("run:demo#", "'#' is no part of a run"),
        ("run:demo#tuned", "run:demo is its result"),
        ("run:my run", "cannot be a run's name.*'whet runs'"),
        ("runs:demo", "no kind of model is called 'runs:' here; did you mean 'run'"),
        ("builtin:demo", "builtin:demo-base does"),
        ("base#merged", "'#' stands in run:NAME#base"),
        ("base+", "names no adapter"),
        ("+adapter", "names no weights"),
        ("mlx:", "names no weights"),
        ("mlx:run:demo#base", "folder of its base"),
        ("mlx:base@int8", "leave out '@int8'"),
        ("mlx:gguf:x", "no kind of model is called 'gguf:' here"),
        ("gguf:", "which file"),
        ("gguf:x.gguf@nf4", "leave out '@nf4'"),
        ("random:base+adapter", "no adapter"),
        ("random:base@int8", "float32 or bfloat16"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1#MODEL"),
        ("http:/localhost#m", "not an address"),
        ("http://host:99999#m", "not an address"),
        ("http://[::1#m", "not an address"),
    ],
)
def test_wrong_names_are_answered_with_the_mend(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        parse_ref(text)
    assert "\n" not in str(caught.value)


def test_a_key_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="WHETSTONE_API_KEY") as caught:
        parse_ref("https://me:secret@host/v1#m")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "there", "meant"),
    [
        ("run:demo", {"run:demo"}, Weights("run:demo")),
        ("a+b@int8", {"a+b@int8"}, Weights("a+b@int8")),
        ("a+b@int8", {"a+b"}, Weights("a+b", None, "int8")),
        ("a#1+b#2", {"a#1", "b#2"}, Weights("a#1", "b#2")),
        ("a+b+c+d", {"a+b", "c+d"}, Weights("a+b", "c+d")),
        ("a+b+c+d", {"a+b", "a"}, Weights("a+b", "c+d")),
        ("a+b", {"b"}, Weights("a", "b")),
        ("v1:2@home+b@nf4", {"v1:2@home", "b"}, Weights("v1:2@home", "b", "nf4")),
        ("mlx:a+b", {"a+b"}, Mlx(Weights("a+b"))),
        ("random:a+b@bfloat16", {"a+b"}, RandomWeights("a+b", "bfloat16")),
        ("gguf:x@int8", {"x@int8"}, Gguf("x@int8")),
    ],
)
def test_what_is_there_as_it_is_written_wins(text: str, there: set[str], meant: ModelRef) -> None:
    assert parse_ref(text, there.__contains__) == meant
    assert str(meant) == text


PIECES = [
    "run:",
    "gguf:",
    "mlx:",
    "http://h",
    "random:",
    "builtin:demo-base",
    "org/name",
    "C:\\x",
    "+",
    "@",
    "#",
    "int8",
]
ANY_TEXT = st.text() | st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)


@given(ANY_TEXT, st.sets(st.text(min_size=1, max_size=4)), st.booleans())
def test_any_text_is_a_model_that_is_written_so_or_one_line(text: str, there: set[str], borders: bool) -> None:
    if borders:
        there |= {text[:cut] for cut, character in enumerate(text) if character in "+@"} - {""}
    try:
        ref = parse_ref(text, there.__contains__)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert str(ref) == text
        assert parse_ref(str(ref), there.__contains__) == ref
