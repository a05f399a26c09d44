"""Asks graders which of two answers is better, in both orders, since many models like what stands first."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from whetstone.data.example import Example, Message
from whetstone.engine.open import Opened
from whetstone.evaluate.evidence import EXAMPLES
from whetstone.evaluate.preference_rows import PREFERENCES, Choice, Preference
from whetstone.evaluate.sample import BASE, TUNED, Sample
from whetstone.files import read_jsonl, write_jsonl
from whetstone.judge_section import Grader
from whetstone.section import stable_hash

__all__ = ["ask_graders", "read_choice"]

_BATCH = 32
_SAID = re.compile(r"\b(A|B|TIE)\b")
_PROMPT = (
    "Two answers to the same request are to be compared.\n\n[Request]\n{request}\n\n[Answer A]\n{first}\n\n"
    "[Answer B]\n{second}\n\n{criteria}\nSay A, B or TIE, and nothing else."
)


def ask_graders(graders: Sequence[tuple[Grader, Opened]], folder: Path, judgement: str) -> None:
    """Has every grader compare the first answers of base and tuned to every example; what is on disk is kept.

    Args:
        graders: Who is asked, and what answers for it.
        folder: Where the answers of the suite are, and ``preferences.jsonl`` grows.
        judgement: Fingerprint of the frozen judgement.
    """
    path = folder / PREFERENCES
    known = [row for row in read_jsonl(path) if row.get("judgement") == judgement] if path.exists() else []
    write_jsonl(path, known)
    done = {(row["example"], row["grader"], row["first"]) for row in known}
    pairs = list(_pairs(folder))
    for grader, opened in graders:
        questions = [
            (example, first, second)
            for example, answers in pairs
            for first, second in ((answers[BASE], answers[TUNED]), (answers[TUNED], answers[BASE]))
            if (example.id, grader.name, first.arm) not in done
        ]
        for start in range(0, len(questions), _BATCH):
            part = questions[start : start + _BATCH]
            requests = [
                opened.request(
                    [Message("user", _question(grader, example, first, second))],
                    max_new_tokens=grader.max_new_tokens,
                    seed=int(stable_hash([grader.name, example.id, first.arm]), 16) % 2**63,
                )
                for example, first, second in part
            ]
            completions = opened.engine.generate(requests)
            rows = [
                Preference(example.id, grader.name, first.arm, second.arm, judgement, read_choice(said.text), said.text)
                for (example, first, second), said in zip(part, completions, strict=True)
            ]
            _append(path, rows)


def read_choice(text: str) -> Choice:
    """The first of A, B and TIE that stands in an answer as a word of its own."""
    found = _SAID.search(text)
    choices: dict[str, Choice] = {"A": "first", "B": "second", "TIE": "tie"}
    return choices[found[1]] if found else "unclear"


def _pairs(folder: Path) -> Iterator[tuple[Example, dict[str, Sample]]]:
    examples = map(Example.from_row, read_jsonl(folder / EXAMPLES))
    answers = {arm: map(Sample.from_row, read_jsonl(folder / f"{arm}.jsonl")) for arm in (BASE, TUNED)}
    first = {arm: (sample for sample in samples if sample.repeat == 0) for arm, samples in answers.items()}
    for example, base, tuned in zip(examples, first[BASE], first[TUNED], strict=True):
        yield example, {BASE: base, TUNED: tuned}


def _question(grader: Grader, example: Example, first: Sample, second: Sample) -> str:
    request = "\n\n".join(message.content for message in example.messages)
    filled = {"request": request, "first": first.text, "second": second.text, "criteria": grader.criteria}
    # One pass, so that an answer that quotes a placeholder stays what it is.
    return re.sub(r"\{(\w+)\}", lambda place: filled[place[1]], _PROMPT)


def _append(path: Path, rows: Sequence[Preference]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row.as_row(), ensure_ascii=False) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())
