"""The shipped suites ``coding`` and ``problem-solving``: right, judged exactly, and not passed by chance."""

import ast
import datetime
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from rapidfuzz import fuzz

import whetstone
from whetstone.data.example import normalised
from whetstone.data.requirements import Requirements
from whetstone.data.tests import code_of, run_tests
from whetstone.errors import UserError
from whetstone.sandbox import run_python
from whetstone.yaml_source import YamlSource

Case = dict[str, Any]

_FOLDER = Path(whetstone.__file__).with_name("suites")
_LINE = 160
_CASE_KEYS = {"id", "category", "source", "references", "requirements", "tests"}
SUITES = {name: YamlSource.read(_FOLDER / f"{name}.yaml").mapping() for name in ("coding", "problem-solving")}
CODING: list[Case] = SUITES["coding"]["cases"]
PROBLEMS: list[Case] = SUITES["problem-solving"]["cases"]

each_suite = pytest.mark.parametrize("name", SUITES)
each_coding_case = pytest.mark.parametrize("case", CODING, ids=lambda case: case["id"])
each_problem = pytest.mark.parametrize("case", PROBLEMS, ids=lambda case: case["id"])


def _can_isolate() -> bool:
    try:
        run_python("")
    except UserError:
        return False
    return True


isolated = pytest.mark.skipif(not _can_isolate(), reason="this machine cannot isolate code")


# Both suites


@each_suite
def test_it_has_enough_cases_of_the_known_keys_in_every_category(name: str) -> None:
    suite = SUITES[name]
    assert len(suite["cases"]) >= 50
    assert "{source}" in suite["prompt"]
    assert 2 <= len(suite["shots"]) <= 4
    assert min(Counter(case["category"] for case in suite["cases"]).values()) >= 4
    for case in [*suite["cases"], *suite["shots"]]:
        assert set(case) <= _CASE_KEYS
        assert case["source"].strip() and all(reference.strip() for reference in case["references"])


@each_suite
def test_no_case_is_asked_twice_nor_shown_solved(name: str) -> None:
    suite = SUITES[name]
    ids = [case["id"] for case in suite["cases"]]
    assert len(set(ids)) == len(ids)
    texts = [normalised(case["source"]) for case in [*suite["cases"], *suite["shots"]]]
    assert len(set(texts)) == len(texts)
    near = [pair for pair in itertools.combinations(texts, 2) if fuzz.ratio(*pair) > 80]
    assert near == []


@each_suite
def test_its_lines_can_be_read(name: str) -> None:
    lines = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# Evaluation suite")
    assert [line for line in lines if len(line) >= _LINE or line != line.rstrip()] == []


# Coding


@isolated
@each_coding_case
def test_the_reference_passes_its_tests(case: Case) -> None:
    outcome = run_tests(case["tests"], case["references"][0], tuple(case["references"]))
    assert outcome.status == "passed", outcome.output


@isolated
def test_broken_answers_and_the_copied_input_fail_the_tests() -> None:
    answers = {case["id"]: [*_broken(case["references"][0]), code_of(case["source"])] for case in CODING}
    tests = {case["id"]: case["tests"] for case in CODING}
    assert (
        run_python(_PASSING, f"passed = passing({answers!r}, {tests!r})\nassert not passed, passed").status == "passed"
    )
    right = {case["id"]: case["references"] for case in CODING}
    assert run_python(_PASSING, f"assert len(passing({right!r}, {tests!r})) == {len(CODING)}").status == "passed"


@isolated
@pytest.mark.slow
@each_coding_case
def test_broken_answers_and_the_copied_input_fail_the_tests_one_by_one(case: Case) -> None:
    for answer in [*_broken(case["references"][0]), code_of(case["source"])]:
        assert run_python(answer, case["tests"]).status == "failed"


@each_coding_case
def test_the_tests_are_several_and_need_the_standard_library_only(case: Case) -> None:
    checks = [node for node in ast.walk(ast.parse(case["tests"])) if isinstance(node, ast.Assert | ast.Raise)]
    assert 4 <= len(checks) <= 9
    for text in (case["references"][0], case["tests"]):
        imported = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert {getattr(node, "module", None) for node in imported} <= {"itertools"}


@each_coding_case
def test_the_prompt_says_every_name_and_signature_that_the_tests_use(case: Case) -> None:
    (definition,) = ast.parse(case["references"][0]).body
    if isinstance(definition, ast.ClassDef):
        assert f"class `{definition.name}`" in normalised_spaces(case["source"])
        methods = [part for part in definition.body if isinstance(part, ast.FunctionDef)]
        wanted = [method.name for method in methods if not method.name.startswith("__")]
    else:
        assert isinstance(definition, ast.FunctionDef)
        wanted = [re.escape(f"{definition.name}({', '.join(part.arg for part in definition.args.args)})")]
        if case["category"] == "bug-fixing":
            wanted = [f"def {definition.name}\\("]
    for name in wanted:
        assert re.search(rf"(?<!\w){name}", normalised_spaces(case["source"])), name


@pytest.mark.parametrize("shot", SUITES["coding"]["shots"])
def test_a_solved_example_is_python(shot: Case) -> None:
    assert isinstance(ast.parse(shot["references"][0]).body[0], ast.FunctionDef)


def normalised_spaces(text: str) -> str:
    return " ".join(text.split())


def _broken(code: str) -> list[str]:
    """The answer with bodies that do nothing, that give back what they are given, and that give back 0, True and ''."""
    return [_with_bodies(code, result) for result in ("None", "{argument}", "0", "True", "False", "''", "[]")]


def _with_bodies(code: str, result: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            argument = node.args.args[-1].arg
            node.body = ast.parse(f"return {result.format(argument=argument)}", mode="exec").body
    return ast.unparse(tree)


_PASSING = '''
def passing(answers, tests):
    """All (id, answer) of which the tests run without a fault."""
    passed = []
    for id, codes in answers.items():
        for code in codes:
            try:
                names = {}
                exec(code, names)
                exec(tests[id], names)
            except Exception:
                continue
            passed.append((id, code))
    return passed
'''


# Problem solving


def answer_of(case: Case) -> str:
    """What stands behind ``Answer:`` in the reference."""
    (reference,) = case["references"]
    return str(reference).removeprefix("Answer: ")


def matches(case: Case, answer: str) -> bool:
    return Requirements(**case["requirements"]).unmet(answer) == []


@each_problem
def test_the_right_line_is_accepted_with_and_without_work_before_it(case: Case) -> None:
    assert Requirements(**case["requirements"]).problem() is None
    answer = answer_of(case)
    for accepted in (
        f"Answer: {answer}",
        f"answer: {answer}.",
        f"**Answer:** {answer}",
        f"**Answer: {answer}**\n",
        f"First we add, then 3 are left.\n\nAnswer: {answer}",
        f"Answer: 7\nThat was wrong.\nAnswer: {answer}",
    ):
        assert matches(case, accepted), accepted
    if answer.isdigit():
        assert matches(case, f"Answer: {answer}.0")
        assert matches(case, f"Answer: {answer}.00")


@each_problem
def test_anything_else_is_refused(case: Case) -> None:
    answer = answer_of(case)
    for refused in (
        "",
        answer,
        f"The result is {answer}.",
        f"Answer: {answer} or 7",
        f"Answer: {answer}\nI am not sure; it may be 7.",
        f"Answer: {answer}\nAnswer: 7",
        f"Answer: not {answer}",
        f"Answer: {answer} apples",
        f"Answer: {answer}1",
        f"Answer: {answer}0",
        f"Answer: 1{answer}",
        f"Answer: {answer},000",
        f"Answer: {answer}/2",
        f"Answer: -{answer}",
        f"Answer: .{answer}",
        f"Answer: {answer}x",
        case["source"],
        *_other_numbers(answer),
    ):
        assert not matches(case, refused), refused
    if answer.isdigit():
        assert not matches(case, f"Answer: {answer}.5")
        assert not matches(case, f"Answer: {answer}.05")


def _other_numbers(answer: str) -> Iterable[str]:
    """The answer with each of its numbers changed, at every place of it."""
    for place in re.finditer(r"\d", answer):
        for digit in "0123456789":
            if digit != place.group():
                yield f"Answer: {answer[: place.start()]}{digit}{answer[place.end() :]}"
        if len(answer) > 1 and answer[: place.end()] != "0":  # 8:41 is 08:41
            yield f"Answer: {answer[: place.start()]}{answer[place.end() :]}"
    if answer.isdigit():
        for number in (int(answer) - 1, int(answer) + 1, 2 * int(answer), int(answer) * 60, int(answer) / 4):
            yield f"Answer: {number}"


def test_only_its_own_answer_is_right() -> None:
    for case, other in itertools.permutations(PROBLEMS, 2):
        if answer_of(other) != answer_of(case):
            assert not matches(case, other["references"][0]), (case["id"], other["id"])


def test_the_example_in_the_prompt_is_the_answer_to_nothing() -> None:
    prompt = SUITES["problem-solving"]["prompt"]
    for case in PROBLEMS:
        assert not matches(case, prompt.replace("{source}", case["source"]))
        assert answer_of(case) != "5/7"


@pytest.mark.parametrize("shot", SUITES["problem-solving"]["shots"])
def test_a_solved_problem_is_right_by_its_own_pattern(shot: Case) -> None:
    assert matches(shot, shot["references"][0])


@each_problem
def test_the_answer_is_what_an_independent_computation_gives(case: Case) -> None:
    computed = COMPUTED[case["id"]]
    answer = answer_of(case)
    if isinstance(computed, str):
        assert answer == computed
    else:
        assert Fraction(answer) == Fraction(computed).limit_denominator(10_000)


def test_everything_is_computed() -> None:
    assert set(COMPUTED) == {case["id"] for case in PROBLEMS}


def clock(start: str, *, minutes: int) -> str:
    """The time of day so many minutes after another one."""
    return (datetime.datetime.strptime(start, "%H:%M") + datetime.timedelta(minutes=minutes)).strftime("%H:%M")


def only(values: Iterable[Any]) -> Any:
    """The value of which there is exactly one different: a puzzle with several solutions fails here."""
    (value,) = set(values)
    return value


def orders(names: str, *conditions: Callable[[Any], bool]) -> list[tuple[str, ...]]:
    """All orders of names in which the conditions hold; a condition gets the order's ``index``."""
    return [
        order
        for order in itertools.permutations(names.split())
        if all(condition(order.index) for condition in conditions)
    ]


def share(outcomes: Iterable[Any], wanted: Callable[[Any], bool]) -> Fraction:
    """Of equally probable outcomes, the share that is wanted."""
    hits = [bool(wanted(outcome)) for outcome in outcomes]
    return Fraction(sum(hits), len(hits))


def weekday(date: datetime.date) -> str:
    return date.strftime("%A")


def first_of(step: Callable[[int], bool], limit: int = 100_000) -> int:
    """The smallest number from 0 on for which something holds."""
    return next(number for number in range(limit) if step(number))


DICE = list(itertools.product(range(1, 7), repeat=2))
_JANUARY = datetime.date(2024, 1, 1)


def _sequence(values: list[int], count: int, following: Callable[[list[int]], int]) -> int:
    while len(values) < count:
        values = [*values, following(values)]
    return values[count - 1]


def _cake(eater: str) -> int:
    """How many of the three statements are true if this one ate it."""
    return sum([eater != "Lea", eater == "Lea", eater != "Nia"])


def _truthful() -> list[str]:
    """Who can be the one who tells the truth: everybody's statement is as true as the speaker is."""
    found = []
    for pia, rolf in itertools.product([True, False], repeat=2):
        if pia == (not rolf) and rolf == (pia and rolf):
            found.append(" ".join(name for name, truthful in (("Pia", pia), ("Rolf", rolf)) if truthful))
    return found


def _path_area() -> int:
    """Squares of 1 metre that belong to the path round the pool of 10 by 6."""
    places = itertools.product(range(-1, 11), range(-1, 7))
    return sum(not (0 <= x < 10 and 0 <= y < 6) for x, y in places)


def _cut_perimeter() -> int:
    """Sides of unit squares of the cut sheet that no other square of it shares."""
    sheet = {(x, y) for x in range(10) for y in range(8) if not (x < 4 and y < 3)}
    around = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    return sum((x + dx, y + dy) not in sheet for x, y in sheet for dx, dy in around)


COMPUTED: dict[str, int | float | str | Fraction] = {
    "problem-001": 14 * 35 - 128,
    "problem-002": (9 * 24 - 18) // 6,
    "problem-003": (23 - 8 + 15) // 2,
    "problem-004": first_of(lambda n: 2 * n + 9 == 51),
    "problem-005": 250 % 12,
    "problem-006": 4 + 2 * first_of(lambda teo: teo + 2 * teo + 4 == 40),
    "problem-007": (18 - 3) * 22 - 47,
    "problem-008": 84 * 2.5,
    "problem-009": 1 / (Fraction(1, 20) + Fraction(1, 30)),
    "problem-010": Fraction(3 * 60, 18),
    "problem-011": first_of(lambda minute: Fraction(16 * minute, 60) + Fraction(20 * minute, 60) == 72),
    "problem-012": (60 + 60) / (60 / 30 + 60 / 60),
    "problem-013": 6 * 10 / 4,
    "problem-014": len(range(0, 60 * 60, 4)) / 20,
    "problem-015": 120 * Fraction(65, 100),
    "problem-016": 50 * Fraction(120, 100) * Fraction(80, 100),
    "problem-017": Fraction(45, 180) * 100,
    "problem-018": first_of(lambda price: price * Fraction(85, 100) == 68),
    "problem-019": Fraction(14_000 - 12_500, 12_500) * 100,
    "problem-020": Fraction(20 + 60, 200 + 300) * 100,
    "problem-021": first_of(lambda members: members * Fraction(40, 100) * Fraction(30, 100) == 18),
    "problem-022": clock("18:45", minutes=2 * 60 + 28),
    "problem-023": first_of(lambda minutes: clock("22:40", minutes=minutes) == "06:15"),
    "problem-024": clock("08:00", minutes=10 * (60 - 3)),
    "problem-025": clock("09:20", minutes=6 * 60 + 50 + 3 * 60),
    "problem-026": next(time for k in range(100) if (time := clock("07:05", minutes=12 * k)) >= "08:30"),
    "problem-027": clock("13:00", minutes=-(25 + 110 + 15)),
    "problem-028": Fraction(2000 - 3 * 240 - 5 * 85, 100),
    "problem-029": 12 + Fraction(5, 100) * (260 - 100),
    "problem-030": first_of(lambda weeks: 45 + 15 * weeks == 180),
    "problem-031": Fraction(86) * Fraction(110, 100) / 4,
    "problem-032": first_of(lambda dollars: dollars * Fraction(90, 100) == 135),
    "problem-033": first_of(lambda fives: 5 * fives + 2 * (27 - fives) == 93),
    "problem-034": 3 * 800 * Fraction(5, 100),
    "problem-035": Fraction(6 * 1000, 400),
    "problem-036": 3200 // 250,
    "problem-037": Fraction(72 * 1000, 60 * 60),
    "problem-038": 5 * 12 + 8,
    "problem-039": Fraction(1200, 8),
    "problem-040": 35 * 9 / 5 + 32,
    "problem-041": Fraction(750, 25),
    "problem-042": 18 + 11 + 18 + 11 - 2,
    "problem-043": 180 - 47 - 68,
    "problem-044": 4 * math.isqrt(225),
    "problem-045": Fraction(30 * 20 * 15, 5**3),
    "problem-046": math.hypot(9, 12),
    "problem-047": _path_area(),
    "problem-048": Fraction(314, 100) * 10**2,
    "problem-049": _cut_perimeter(),
    "problem-050": only(
        order[2]
        for order in orders(
            "Ana Ben Cem Dora",
            lambda at: at("Ana") < at("Ben"),
            lambda at: at("Ben") < at("Cem") < at("Dora"),
        )
    ),
    "problem-051": only(
        order[1]
        for order in orders(  # the tallest first
            "Olga Piet Quin Rana Sami",
            lambda at: at("Quin") < at("Olga") < at("Piet"),
            lambda at: at("Rana") < at("Quin"),
            lambda at: at("Piet") < at("Sami"),
        )
    ),
    "problem-052": only(
        order[1]
        for order in orders(
            "Ute Vic Wim Xia Yan",
            lambda at: at("Ute") == 4 and at("Yan") == 3,
            lambda at: abs(at("Vic") - at("Wim")) == 1 and abs(at("Vic") - at("Xia")) == 1,
        )
    ),
    "problem-053": only(
        order[0]
        for order in orders(  # what the boxes labelled apples, pears and both hold
            "apples pears both",
            lambda at: at("apples") != 0 and at("pears") != 1 and at("both") != 2,
            lambda at: at("apples") != 2,
        )
    ),
    "problem-054": only(_truthful()),
    "problem-055": only(eater for eater in ("Lea", "Max", "Nia") if _cake(eater) == 1),
    "problem-056": only(
        ("Gus", "Hana", "Ivo")[order.index("cat")]
        for order in orders("cat dog parrot", lambda at: at("parrot") == 0 and at("cat") != 1)
    ),
    "problem-057": only(
        order[3]
        for order in orders(
            "wash dry iron fold sort",
            lambda at: at("wash") < at("dry") < at("iron") < at("fold"),
            lambda at: at("sort") + 1 == at("wash"),
        )
    ),
    "problem-058": _sequence([5], 6, lambda values: 2 * values[-1] - 3),
    "problem-059": _sequence([8], 25, lambda values: values[-1] + 6),
    "problem-060": sum(number for number in range(1, 40) if number % 2),
    "problem-061": _sequence([2, 5], 8, lambda values: values[-1] + values[-2]),
    "problem-062": len({(x, "left") for x in range(21)} | {(x, side) for x in range(20) for side in ("top", "bottom")}),
    "problem-063": _sequence([480], 6, lambda values: values[-1] // 2),
    "problem-064": list(itertools.islice(itertools.cycle(["red", "green", "blue", "yellow"]), 50))[-1],
    "problem-065": only(
        weekday(datetime.date(year, 3, 31))
        for year in range(1900, 2100)
        if weekday(datetime.date(year, 3, 1)) == "Tuesday"
    ),
    "problem-066": only(
        weekday(day + datetime.timedelta(100))
        for day in (_JANUARY + datetime.timedelta(days) for days in range(28))
        if weekday(day) == "Friday"
    ),
    "problem-067": only((datetime.date(year, 6, 3) - datetime.date(year, 4, 10)).days for year in range(2000, 2010)),
    "problem-068": max(age for age in range(100) if datetime.date(1987 + age, 11, 14) <= datetime.date(2020, 2, 1)),
    "problem-069": len(range(1996, 2025, 4)),
    "problem-070": weekday(datetime.date(2024, 3, 1)),
    "problem-071": sum((5 + day) % 7 == 6 for day in range(30)),  # Monday is 0, so it begins with 5
    "problem-072": len(list(itertools.product(range(4), range(5), range(3)))),
    "problem-073": len(list(itertools.combinations(range(9), 2))),
    "problem-074": sum(digits[-1] in "24" for digits in itertools.permutations("12345", 3)),
    "problem-075": sum(number % 3 == 0 or number % 5 == 0 for number in range(1, 101)),
    "problem-076": sum(sum(who < 7 for who in team) == 2 for team in itertools.combinations(range(10), 3)),
    "problem-077": len(set(itertools.permutations("LEVEL"))),
    "problem-078": sum(len(str(page)) for page in range(1, 121)),
    "problem-079": share("rrrrbbbbbbwwwww", lambda ball: ball == "b"),
    "problem-080": share(itertools.product("ht", repeat=3), lambda coins: coins.count("h") == 2),
    "problem-081": share(DICE, lambda dice: sum(dice) == 9),
    "problem-082": share(itertools.permutations("rrrbb", 2), lambda balls: balls == ("r", "r")),
    "problem-083": share(range(1, 9), lambda number: number > 1 and all(number % d for d in range(2, number))),
    "problem-084": share(DICE, lambda dice: 6 in dice),
    "problem-085": share("BANANA", lambda letter: letter in "AB"),
}
