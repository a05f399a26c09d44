"""Errors planted in free text: each kind occurs, nothing stays right, and little changes."""

import re
import time
from difflib import SequenceMatcher
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whetstone.data.grammar.corpus import clean_sentences, split_cells
from whetstone.data.grammar.free_pattern import read_rule
from whetstone.data.grammar.free_rules import CUES, RULES
from whetstone.data.grammar.free_spelling import free_misspellings
from whetstone.data.grammar.free_text import CorruptedText, corrupt_text
from whetstone.data.grammar.free_tokens import tokenised
from whetstone.data.grammar.free_words import CLASSES
from whetstone.data.grammar.sentence import ERROR_KINDS

CELLS = split_cells(0)
ALL_CELLS = (*CELLS.train, *CELLS.validation, *CELLS.test, *CELLS.mixed)
CORPUS = [sentence.text for sentence in clean_sentences(ALL_CELLS, 200, 3)]
NATURAL = [
    "He goes to work by bus, but I prefer my car.",
    "I have lived in this city since 2010.",
    "There are many reasons why people want to learn English.",
    "In my opinion, a good teacher should listen to her students.",
    "When I was young, I spent a lot of time in the garden.",
    "If it rains tomorrow, we will stay at home.",
    "My parents didn't know where he was.",
    "She has written two books about the history of France.",
    "The weather was so bad that we couldn't see the other side of the river.",
    "Nowadays, most people depend on their phones.",
    "Because he was very tired , he did n't finish his homework .",
    "We have just received an important letter from the university.",
    "“It’s a beautiful day,” she said.",
    "You can read more at https://example.org/a_page or write to me@example.org.",
]
CLEAN = [*CORPUS, *NATURAL]
# What a careless rule makes of the sentence on the left, and what is right all the same.
RIGHT_AS_WELL = {
    "If she was here, I would ask her.": ("If she were here, I would ask her.",),
    "They suggest that he goes home.": ("They suggest that he go home.",),
    "She bought a cake and a loaf.": ("She bought cake and a loaf.",),
    "He works as a teacher.": ("He works as teacher.",),
    "It is an historic moment.": ("It is a historic moment.",),
    "They can find a house.": ("They can found a house.",),
    "He paid without paying attention.": ("He paid without pay attention.",),
    "The group of students is large.": ("The group of students are large.",),
    "She travelled to Rome.": ("She traveled to Rome.",),
    "My favourite colour is red.": ("My favorite colour is red.", "My favourite color is red."),
    "We ate the painting.": ("We ate the panting.",),
    "The patients wait.": ("The patents wait.",),
}


def corrupted(text: str, seeds: int = 60) -> list[CorruptedText]:
    """What one error can do to a text."""
    made = (corrupt_text(text, Random(seed), 1) for seed in range(seeds))
    return [one for one in made if one is not None]


def changes(before: str, after: str) -> int:
    """Places where two texts differ, word by word; a word that moves counts once."""
    matcher = SequenceMatcher(None, before.split(), after.split(), autojunk=False)
    kinds = [kind for kind, *_ in matcher.get_opcodes() if kind != "equal"]
    return len(kinds) - min(kinds.count("insert"), kinds.count("delete"))


def test_every_kind_occurs_on_the_corpus_and_on_natural_sentences() -> None:
    for texts in (CORPUS, NATURAL):
        assert {one.kinds[0] for text in texts for one in corrupted(text, 20)} == set(ERROR_KINDS)


def test_a_planted_error_never_leaves_the_text_or_makes_another_right_sentence() -> None:
    right = {sentence.text for sentence in clean_sentences(ALL_CELLS, 4000, 5)} | set(CLEAN)
    made = [one.source for text in CLEAN for one in corrupted(text, 12)]
    assert len(made) > 2000
    assert right.isdisjoint(made)


@pytest.mark.parametrize("text", RIGHT_AS_WELL)
def test_what_would_be_right_is_not_planted(text: str) -> None:
    sources = {one.source for one in corrupted(text, 300)}
    assert sources
    assert sources.isdisjoint((text, *RIGHT_AS_WELL[text]))


@pytest.mark.parametrize(("errors", "share_that_admits_them"), [(1, 1.0), (2, 0.85), (3, 0.4)])
def test_so_many_errors_change_so_many_places(errors: int, share_that_admits_them: float) -> None:
    made = [(text, corrupt_text(text, Random(index), errors)) for index, text in enumerate(CLEAN)]
    found = [(text, one) for text, one in made if one is not None]
    assert len(found) >= share_that_admits_them * len(CLEAN)
    for text, one in found:
        assert len(one.kinds) == errors == len(set(one.kinds))
        assert 1 <= changes(text, one.source) <= errors + 1, (text, one)
        # "However, ..." loses one character; a moved word appears twice in a distance by characters.
        assert abs(len(one.source) - len(text)) <= 12 * errors


@pytest.mark.parametrize(
    ("clean", "wrong"),
    [
        ("He goes home.", "He go home."),
        ("She has an apple tree.", "She has a apple tree."),
        ("This is a university.", "This is an university."),
        ("They are in the kitchen.", "They are on the kitchen."),
        ("We depend on you.", "We depend of you."),
        ("He left two days ago.", "He leaves two days ago."),
        ("I did not see him and did not eat.", "I did not see him and did not ate."),
        ("He wrote a letter.", "He writed a letter."),
        ("There are two dogs.", "There are two dog."),
        ("I need advice.", "I need advices."),
        ("It is very big.", "It is big very."),
        ("They don't know.", "They dont know."),
        ("I want to learn.", "I want learn."),
        ("This is bigger than that.", "This is more bigger than that."),
        ("Their dog is here.", "There dog is here."),
        ("The film starts on Monday.", "The film starts on monday."),
        ("I receive letters.", "I recieve letters."),
        ("Don’t go there.", "Dont go there."),
    ],
)
def test_what_learners_write_is_among_the_errors(clean: str, wrong: str) -> None:
    assert wrong in {one.source for one in corrupted(clean, 400)}


def test_a_text_without_a_sure_place_gives_nothing() -> None:
    assert corrupt_text("Xqz", Random(0), 1) is None
    assert corrupt_text("", Random(0), 1) is None
    assert corrupt_text("He goes.", Random(0), 12) is None


def test_links_addresses_and_code_are_left_alone() -> None:
    text = NATURAL[-1]
    for one in corrupted(text, 80):
        assert "https://example.org/a_page" in one.source
        assert "me@example.org" in one.source


@given(st.integers(0, 10**6), st.sampled_from(CLEAN), st.integers(1, 3))
def test_the_seed_decides_alone(seed: int, text: str, errors: int) -> None:
    assert corrupt_text(text, Random(seed), errors) == corrupt_text(text, Random(seed), errors)


@given(st.text(max_size=80), st.integers(0, 100))
def test_any_text_is_survived_and_its_tokens_are_where_they_say(text: str, seed: int) -> None:
    one = corrupt_text(text, Random(seed), 1)
    assert one is None or one.source != text
    tokens = tokenised(text)
    assert all(text[token.start : token.end] == token.text for token in tokens)


def test_misspellings_are_no_accepted_spellings() -> None:
    for word in ("travelled", "colour", "centre", "patients", "painting", "cat", "Anna", "judgement"):
        assert free_misspellings(word) == ()
    assert "recieve" in free_misspellings("receive")
    assert free_misspellings("understand")


def test_every_rule_names_classes_and_cues_that_exist() -> None:
    known = {*CLASSES, "YEAR", "NUMBER", "WORD", "UPPER", "VOWEL", "CONSONANT", "NEGATED", "ASSERTED"}
    for kind, table in RULES.items():
        for line in table.strip().splitlines():
            rule = read_rule(kind, 0, line)
            elements = (*rule.left, *rule.core, *rule.right)
            names = {key for element in elements for key in element.keys if re.fullmatch("[A-Z]+", key)}
            assert names <= known, line
    used = {cue for table in RULES.values() for cue in re.findall(r"(?:^| )[-~+]([A-Z_]+) ", table, re.M)}
    assert used <= set(CUES)


def test_a_line_that_is_no_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="not a rule: he goes -> go"):
        read_rule("agreement", 0, "he goes -> go")


@pytest.mark.parametrize("piece", ["a,", "a ", "he is ", "1,,", "She has gone to the city. "])
def test_a_long_text_takes_time_in_proportion(piece: str) -> None:
    start = time.process_time()
    corrupt_text(piece * (40_000 // len(piece)), Random(0), 2)
    assert time.process_time() - start < 2


def test_cues_are_not_trusted_in_a_sentence_without_an_end() -> None:
    def sources(text: str) -> set[str]:
        return {one.source for one in corrupted(text, 200)}

    said = "they say that he goes home."
    assert any("he go home." in source for source in sources(f"now {said}"))
    assert not any("he go home." in source for source in sources("now " * 120 + said))
