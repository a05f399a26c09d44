"""New examples from old ones: groups, ids, clean shares, and prompts in other words."""

from collections import Counter

import pytest

from whetstone.data.augment import (
    ALREADY_RIGHT,
    CORRECTION_PROMPTS,
    Augmented,
    Planting,
    plant_errors,
    swap_prompts,
)
from whetstone.data.example import Example, Message
from whetstone.data.grammar.corpus import clean_sentences, split_cells
from whetstone.data.grammar.sentence import ERROR_KINDS
from whetstone.errors import UserError

TEXTS = [
    Example(f"t{number}", (), (sentence.text,), sentence.text, f"group {number // 2}")
    for number, sentence in enumerate(clean_sentences(split_cells(0).train, 200, 1))
]
PAIR = Example(
    id="p1",
    messages=(Message("system", "Be brief."), Message("user", "Correct this: He go home.")),
    references=("He goes home.", "He went home."),
    source="He go home.",
    group="document 7",
    category="agreement",
)


def planted(planting: Planting) -> Augmented:
    return plant_errors(TEXTS, planting)


def test_pairs_keep_group_and_correction_and_say_their_first_error() -> None:
    originals = {example.id: example for example in TEXTS}
    made = planted(Planting(copies=2, prompt="Correct: {source}", system="Be brief.")).examples
    assert len({example.id for example in made}) == len(made) > 300
    for pair in made:
        original = originals[pair.id.partition("-error")[0]]
        assert pair.group == original.group
        assert pair.references == original.references
        assert pair.messages == (Message("system", "Be brief."), Message("user", f"Correct: {pair.source}"))
        assert (pair.source == pair.references[0]) == (pair.category == ALREADY_RIGHT)
        assert pair.category in (*ERROR_KINDS, ALREADY_RIGHT)


def test_no_pair_is_made_twice() -> None:
    made = planted(Planting(copies=6, errors=(1, 1), keep_clean=0.5)).examples
    counts = Counter((pair.id.partition("-error")[0], pair.source) for pair in made)
    assert max(counts.values()) == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_stays_clean(share: float) -> None:
    made = planted(Planting(keep_clean=share)).examples
    clean = sum(pair.category == ALREADY_RIGHT for pair in made)
    assert clean / len(made) == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


def test_what_is_planted_depends_on_seed_and_id_not_on_order() -> None:
    forward = plant_errors(TEXTS, Planting(seed=4)).examples
    backward = plant_errors(TEXTS[::-1], Planting(seed=4)).examples
    other = plant_errors(TEXTS, Planting(seed=5)).examples
    assert set(forward) == set(backward)
    assert forward != other


def test_texts_that_admit_no_error_are_named() -> None:
    augmented = plant_errors([TEXTS[0], Example("odd", (), ("Xqz",), "Xqz", "g")], Planting(keep_clean=0))
    assert [pair.id for pair in augmented.examples] == ["t0-error1"]
    assert augmented.barren == ("odd",)


def test_fewer_errors_are_planted_where_a_text_admits_no_more_but_never_less_than_the_least() -> None:
    short = [Example("s", (), ("He goes.",), "He goes.", "g")]
    assert len(plant_errors(short, Planting(errors=(1, 9), keep_clean=0)).examples) == 1
    assert plant_errors(short, Planting(errors=(9, 9), keep_clean=0)).barren == ("s",)


def test_the_prompt_of_a_pair_is_kept_around_the_new_source() -> None:
    made = plant_errors([PAIR], Planting(copies=8, keep_clean=0, prompt="unused {source}")).examples
    assert len(made) >= 3
    for pair in made:
        assert pair.messages == (PAIR.messages[0], Message("user", f"Correct this: {pair.source}"))
        assert pair.references == ("He goes home.",)
        assert pair.source != PAIR.source


def test_prompts_are_said_in_other_words() -> None:
    made = swap_prompts([PAIR], CORRECTION_PROMPTS, copies=3, seed=1)
    assert [example.id for example in made] == ["p1-prompt1", "p1-prompt2", "p1-prompt3"]
    assert len({example.messages[-1].content for example in made}) == 3
    for example in made:
        assert example.messages[0] == PAIR.messages[0]
        assert PAIR.source in example.messages[-1].content
        assert (example.references, example.group, example.source) == (PAIR.references, PAIR.group, PAIR.source)


def test_the_built_in_prompts_differ_and_hold_the_source_once() -> None:
    assert len(set(CORRECTION_PROMPTS)) == len(CORRECTION_PROMPTS) >= 12
    assert all(prompt.count("{source}") == 1 for prompt in CORRECTION_PROMPTS)


@pytest.mark.parametrize(
    ("examples", "prompts", "copies", "message"),
    [
        ([PAIR], ["Correct it."], 1, r"prompt 1 \('Correct it.'\): does not say where the text goes"),
        ([PAIR], ["Fix {source}"], 2, "2 copies need as many prompts, but there are 1"),
        (TEXTS[:1], ["Fix {source}"], 1, "example 't0': is plain text"),
    ],
)
def test_prompts_that_cannot_be_swapped_are_refused(
    examples: list[Example], prompts: list[str], copies: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        swap_prompts(examples, prompts, copies, seed=0)
