"""The suites creative, marketing, copywriting and customer-service: good answers meet their cases, and no others do."""

import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from rapidfuzz.fuzz import ratio

import whetstone
from whetstone.data.requirements import Requirements

Case = dict[str, Any]

SUITES = ("creative", "marketing", "copywriting", "customer-service")
FOLDER = Path(whetstone.__file__).parent / "suites"
HERE = Path(__file__).parent
# fmt: off
METRICS = {
    "exact_match", "copy_rate", "extra_text", "empty", "too_short", "truncated", "length_words", "length_tokens",
    "distinct_1", "distinct_2", "self_bleu", "repetition", "meets_requirements", "pattern", "refusal", "clarification",
    "special_token_leak",
}
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)
# fmt: on
SUITE_KEYS = {"about", "metrics", "max_new_tokens", "temperature", "repeats", "system", "shots", "cases"}
CASE_KEYS = {"id", "category", "prompt", "source", "references", "group", "requirements"}

LOADED: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) for name in SUITES
}
CASES: dict[str, Case] = {case["id"]: case for name in SUITES for case in LOADED[name]["cases"]}
GOOD: dict[str, str] = yaml.safe_load((HERE / "answers_c.yaml").read_text(encoding="utf-8"))
MORE: dict[str, dict[str, str]] = yaml.safe_load((HERE / "more_answers_c.yaml").read_text(encoding="utf-8"))

FILLERS = (
    "Thank you for your message. This is an important topic, and there are many ways to look at it. It is always a "
    "good idea to think about what matters most to you and to the people around you. With a little care and some "
    "planning, everything can be improved step by step. In conclusion, there are many things to consider, and I hope "
    "that this has been helpful to you today.",
    "This is an important topic, and there are many ways to look at it.",
    "We are sorry for the inconvenience. Your request is important, and we will get back to you as soon as possible.",
    "I'm sorry, but as an AI language model I cannot help with that request.",
    "Sure! Here is what you asked for:",
    "1. First\n2. Second\n3. Third",
    "- Great quality\n- Great price\n- Great service\n- Great team\n- Great value",
    '{"answer": "ok"}',
)


def unmet(case: Case, answer: str) -> list[str]:
    return Requirements(**case["requirements"]).unmet(answer)


def met_by(answer_of: Any) -> list[str]:
    """The cases that the answer which is made for them meets."""
    return [key for key, case in CASES.items() if not unmet(case, answer_of(case))]


def same_group(one: Case, other: Case) -> bool:
    return "group" in one and one["group"] == other.get("group")


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_says_what_it_is_and_holds_known_keys(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    suite = LOADED[name]
    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) < 160
    assert set(suite) <= SUITE_KEYS
    assert suite["about"].endswith("cannot tell.")
    assert set(suite["metrics"]) <= METRICS and len(set(suite["metrics"])) == len(suite["metrics"])
    assert "self_bleu" not in suite["metrics"] or suite["repeats"] >= 2


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_many_cases_of_every_category(name: str) -> None:
    cases = LOADED[name]["cases"]
    assert len(cases) >= 44
    assert [case["id"] for case in cases] == [f"{name}-{number:03}" for number in range(1, len(cases) + 1)]
    assert all(set(case) <= CASE_KEYS for case in cases)
    assert min(Counter(case["category"] for case in cases).values()) >= 4


@pytest.mark.parametrize("name", SUITES)
def test_no_case_is_nearly_another(name: str) -> None:
    for one, other in itertools.combinations(LOADED[name]["cases"], 2):
        assert one["prompt"] != other["prompt"]
        assert same_group(one, other) or ratio(one["prompt"], other["prompt"]) < 92, (one["id"], other["id"])


@pytest.mark.parametrize("name", SUITES)
def test_shots_are_solved_and_no_cases(name: str) -> None:
    shots = LOADED[name]["shots"]
    assert 2 <= len(shots) <= 3
    for shot in shots:
        assert all(shot["references"])
        assert all(ratio(shot["prompt"], case["prompt"]) < 92 for case in LOADED[name]["cases"])


@pytest.mark.parametrize("key", CASES)
def test_requirements_are_sound(key: str) -> None:
    assert Requirements(**CASES[key]["requirements"]).problem() is None


def test_a_source_stands_in_its_prompt() -> None:
    assert [key for key, case in CASES.items() if case.get("source", "") not in case["prompt"]] == []


def test_every_limit_is_told() -> None:
    for key, case in CASES.items():
        prompt, asked = case["prompt"], case["requirements"]
        told = {int(number) for number in re.findall(r"\d+", prompt)}
        told |= {number for number, word in enumerate(NUMBERS) if re.search(rf"\b{word}\b", prompt)}
        for name in {"max_words", "max_chars", "list_items"} & set(asked):
            assert asked[name] in told, (key, name)
        stated = re.search(r"\b(\d+)\s+to\s+(\d+)\s+words", prompt)
        if stated:
            assert (asked["min_words"], asked["max_words"]) == tuple(map(int, stated.groups())), key


def test_every_case_has_a_good_answer() -> None:
    assert set(GOOD) == set(CASES)


@pytest.mark.parametrize("key", GOOD)
def test_a_good_answer_meets_its_case(key: str) -> None:
    assert unmet(CASES[key], GOOD[key]) == []


@pytest.mark.parametrize("key", MORE["good"])
def test_a_good_answer_in_another_manner_meets_its_case(key: str) -> None:
    assert unmet(CASES[key], MORE["good"][key]) == []


@pytest.mark.parametrize("key", MORE["broken"])
def test_an_answer_that_breaks_a_rule_is_told_by_the_rule_alone(key: str) -> None:
    assert unmet(CASES[key], MORE["broken"][key]) == ["forbidden"]


def test_nothing_meets_no_case() -> None:
    assert met_by(lambda _: "") == []
    assert met_by(lambda _: " \n") == []


def test_a_copied_prompt_or_source_meets_no_case() -> None:
    assert met_by(lambda case: case["prompt"]) == []
    assert met_by(lambda case: case.get("source", case["prompt"])) == []
    assert met_by(lambda case: f"Sure! Here you go:\n\n{case['prompt']}") == []


def test_no_paragraph_of_a_prompt_meets_its_case() -> None:
    copied = {key: case["prompt"].split("\n\n") for key, case in CASES.items()}
    assert [key for key, parts in copied.items() if any(not unmet(CASES[key], part) for part in parts)] == []


@pytest.mark.parametrize("filler", FILLERS)
def test_a_filler_meets_no_case(filler: str) -> None:
    assert met_by(lambda _: filler) == []


@pytest.mark.parametrize("name", SUITES)
def test_a_case_is_met_by_no_good_answer_to_another(name: str) -> None:
    for one, other in itertools.permutations(LOADED[name]["cases"], 2):
        assert same_group(one, other) or unmet(one, GOOD[other["id"]]), (one["id"], other["id"])


LOOPS = ("| a | b ", "Q: why?\nA: because.\n", "- one: two\n", "a.", "\n \n", "1. Tarnwick tea ", '"a" ', "like as ")


@pytest.mark.parametrize("loop", LOOPS)
def test_an_endless_answer_meets_no_case_and_is_judged_at_once(loop: str) -> None:
    # A pattern that backtracks without end would run into the time limit of the tests.
    assert met_by(lambda _: loop * 150) == []
    assert met_by(lambda case: (GOOD[case["id"]] + "\n") * 8 + loop * 40) == []
