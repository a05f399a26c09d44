"""The suites of grammar, format, retention and knowledge: complete, without repetitions, and possible to pass."""

import json
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from rapidfuzz import fuzz

import whetstone
from whetstone.data.answer import matches
from whetstone.data.requirements import Requirements
from whetstone.evaluate.metrics.catalogue import METRICS as ALL_METRICS

NAMES = ("grammar", "format", "retention", "knowledge")
PACKAGE = Path(whetstone.__file__).parent
ANSWERS = Path(__file__).parent / "answers_format.yaml"
SUITE_KEYS = {"about", "metrics", "max_new_tokens", "temperature", "repeats", "system", "prompt", "shots", "cases"}
CASE_KEYS = {"id", "category", "source", "prompt", "references", "group", "requirements", "tests", "text"}
METRICS = {one.name for one in ALL_METRICS}


@cache
def suite(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(_text(name), Loader=yaml.CSafeLoader)
    return loaded


def _text(name: str) -> str:
    return (PACKAGE / "suites" / f"{name}.yaml").read_text(encoding="utf-8")


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = suite(name)["cases"]
    return found


def shots(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = suite(name).get("shots", [])
    return found


def asked(case: dict[str, Any]) -> str:
    """What makes a case itself: its text, its source, or its prompt."""
    text: str = case.get("text") or case.get("source") or case["prompt"]
    return text


@cache
def answers() -> dict[str, dict[str, list[str]]]:
    loaded: dict[str, dict[str, list[str]]] = yaml.load(ANSWERS.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return loaded


@pytest.mark.parametrize("name", NAMES)
class TestEverySuite:
    def test_has_known_keys_and_metrics(self, name: str) -> None:
        assert set(suite(name)) <= SUITE_KEYS
        assert set(suite(name)["metrics"]) <= METRICS
        assert len(set(suite(name)["metrics"])) == len(suite(name)["metrics"])
        assert suite(name)["about"].endswith(".")
        for case in cases(name) + shots(name):
            assert set(case) <= CASE_KEYS, case
            texts = [case.get(key, "x") for key in ("id", "category", "source", "prompt", "text")]
            texts += case.get("references", ["x"])
            assert texts and all(isinstance(text, str) and text == text.strip() != "" for text in texts), case

    def test_has_enough_cases_with_ids_of_their_own(self, name: str) -> None:
        assert len(cases(name)) >= (48 if name == "format" else 60)
        assert max(Counter(case["id"] for case in cases(name)).values()) == 1

    def test_has_at_least_three_cases_of_every_category(self, name: str) -> None:
        assert min(Counter(case["category"] for case in cases(name)).values()) >= 3

    def test_asks_nothing_twice(self, name: str) -> None:
        texts = [asked(case) for case in cases(name) + shots(name)]
        alike = [pair for pair in combinations(texts, 2) if fuzz.ratio(*pair, score_cutoff=90)]
        assert alike == []

    def test_shots_are_solved(self, name: str) -> None:
        assert len(shots(name)) in ((0,) if name == "retention" else (2, 3, 4))
        assert all(shot["references"] for shot in shots(name))

    def test_references_are_distinct(self, name: str) -> None:
        for case in cases(name):
            references = case.get("references", [])
            assert len(set(references)) == len(references), case

    def test_requirements_can_be_read(self, name: str) -> None:
        for case in cases(name):
            if "requirements" in case:
                assert Requirements(**case["requirements"]).problem() is None, case

    def test_lines_are_short_and_a_comment_comes_first(self, name: str) -> None:
        lines = _text(name).splitlines()
        assert lines[0].startswith(f"# {name.capitalize()}: ")
        assert max(map(len, lines)) < 160


class TestGrammar:
    def test_has_errors_of_many_kinds_and_a_fifth_of_right_sentences(self) -> None:
        kinds = Counter(case["category"] for case in cases("grammar"))
        assert len(kinds) >= 12
        assert 0.17 <= kinds["correct"] / kinds.total() <= 0.23

    def test_only_right_sentences_are_left_alone(self) -> None:
        for case in cases("grammar"):
            assert case["references"], case
            assert matches(case["source"], case["references"]) == (case["category"] == "correct"), case
            if case["category"] == "correct":
                assert case["references"] == [case["source"]]

    def test_corrections_stay_close_to_the_sentence(self) -> None:
        for case in cases("grammar"):
            for reference in case["references"]:
                # A word that only moves is no far-reaching change, so the better of two orders counts.
                likeness = max(measure(case["source"], reference) for measure in (fuzz.ratio, fuzz.token_sort_ratio))
                assert likeness >= 75, reference

    def test_corrections_are_whole_sentences(self) -> None:
        for case in cases("grammar") + shots("grammar"):
            for reference in case["references"]:
                assert reference[0].isupper() and reference[-1] in ".?!" and "  " not in reference, reference

    def test_no_correction_is_the_sentence_of_another_case(self) -> None:
        sources = {case["source"]: case["id"] for case in cases("grammar")}
        for case in cases("grammar"):
            assert all(sources.get(reference, case["id"]) == case["id"] for reference in case["references"])


class TestFormat:
    def test_every_case_requires_something_and_has_answers(self) -> None:
        assert all(case["requirements"] for case in cases("format"))
        assert sorted(answers()) == sorted(case["id"] for case in cases("format"))
        assert all(entry["meets"] and entry["fails"] for entry in answers().values())

    @pytest.mark.parametrize("case", cases("format"), ids=lambda case: str(case["id"]))
    def test_answers_meet_the_requirements_and_near_misses_do_not(self, case: dict[str, Any]) -> None:
        requirements = Requirements(**case["requirements"])
        for answer in answers()[case["id"]]["meets"]:
            assert requirements.unmet(answer) == [], answer
            # A model that ends with a line break has not left the form.
            assert requirements.unmet(answer + "\n") == [], answer
        for answer in answers()[case["id"]]["fails"]:
            assert requirements.unmet(answer) != [], answer

    @pytest.mark.parametrize("case", cases("format"), ids=lambda case: str(case["id"]))
    def test_neither_silence_nor_the_question_nor_chatter_passes(self, case: dict[str, Any]) -> None:
        requirements = Requirements(**case["requirements"])
        for answer in ("", "I am not sure.", asked(case), "Sure! Here is what you asked for:\n\n```\nx\n```"):
            assert requirements.unmet(answer) != [], answer

    def test_no_answer_of_a_case_passes_many_others(self) -> None:
        passed = Counter(
            case["id"]
            for case in cases("format")
            for name, entry in answers().items()
            if name != case["id"] and not Requirements(**case["requirements"]).unmet(entry["meets"][0])
        )
        # A length or an absent letter is met by chance; a form is not.
        loose = {case["id"] for case in cases("format") if case["category"] in ("length", "forbidden", "letter case")}
        assert {name for name, count in passed.items() if count > 3} <= loose | {"structure-three-lines"}


class TestRetention:
    def test_texts_are_of_forty_to_a_hundred_and_thirty_words(self) -> None:
        for case in cases("retention"):
            assert 40 <= len(case["text"].split()) <= 130, case["id"]
            assert not {"prompt", "source", "references", "requirements"} & set(case)

    def test_texts_are_not_the_general_text_of_the_package(self) -> None:
        lines = (PACKAGE / "assets" / "general-text.jsonl").read_text(encoding="utf-8").splitlines()
        known = {part for line in lines for part in _runs(json.loads(line)["text"])}
        for case in cases("retention"):
            assert not known & _runs(case["text"]), case["id"]


def _runs(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[start : start + 6]) for start in range(len(words) - 5)}


class TestKnowledge:
    def test_has_a_short_answer_for_every_question(self) -> None:
        assert len({case["category"] for case in cases("knowledge")}) >= 7
        for case in cases("knowledge") + shots("knowledge"):
            assert case["source"].endswith("?")
            assert all(len(reference) <= 40 for reference in case["references"])

    def test_every_reference_meets_the_requirements(self) -> None:
        for case in cases("knowledge"):
            for reference in case["references"]:
                assert Requirements(**case["requirements"]).unmet(reference) == [], reference

    def test_no_question_holds_its_answer(self) -> None:
        # One question offers the words to choose from.
        for case in cases("knowledge"):
            words = set(case["source"].lower().rstrip("?").replace(",", "").replace(":", "").split())
            held = [name for name in case["references"] if set(name.lower().split()) <= words]
            assert not held or case["id"] == "language-10", case
