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
from whetstone.evaluate.metrics.catalogue import METRICS as ALL
from whetstone.data.answer import matches
from whetstone.data.requirements import Requirements

NAMES = ("grammar", "format", "retention", "knowledge")
PACKAGE = Path(whetstone.__file__).parent
ANSWERS = Path(__file__).parent / "answers_format.yaml"
SUITE_KEYS = {"about", "metrics", "max_new_tokens", "temperature", "repeats", "system", "prompt", "shots", "cases"}
CASE_KEYS = {"id", "category", "source", "prompt", "references", "group", "requirements", "tests", "text"}
METRICS = {one.name for one in ALL}
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
