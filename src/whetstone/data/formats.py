"""A raw row becomes a draft of examples: ten shapes of rows, told apart by their keys.

What is a fault of the row's shape (a missing key, a wrong type, a conversation without an answer) is a
:class:`~whetstone.data.strict_json.RowError`. What is only doubtful (blank texts, roles in an odd order) is kept as it
is: the checks count it.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from whetstone.data.example import Message, Role, normalised
from whetstone.data.fields import label_of, list_of, optional_list, optional_text, references_of, text_of
from whetstone.data.finding import excerpt
from whetstone.data.preference import check_differs, rejected_answer, transcript
from whetstone.data.strict_json import RowError, kind
from whetstone.data.tests import TEST_FIELDS, tests_of
from whetstone.data_section import Data, Format
from whetstone.section import stable_hash

__all__ = ["LAYOUTS", "SHAREGPT_ROLES", "Answer", "Draft", "Layout", "Parser", "format_of"]

MESSAGE_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}

SHAREGPT_ROLES: Mapping[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
"""The names that ShareGPT exports and the sets made from them use."""

_GROUP_CHARS = 40
"""How much of what the user says a conversation's group is made from; "Hello" opens many."""

_ONE_WORD = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Layout:
    """The names under which a row holds what its format needs; "" where it has no such field.

    Attributes:
        format: How the fields are read.
        prompt: The field with the conversation, the instruction, the prompt or the text; in ``preference`` the chosen
            answer or conversation.
        answer: The field with the answer; in ``prompt-references`` the list of them, in ``preference`` the one that was
            rejected.
        query: The field with the text that an instruction works on; in ``preference`` the prompt.
        tests: The field with the tests that a row of this format must have.
        history: The field with earlier turns, pairs of question and answer.
        system: The field with the system turn.
        role_tag: The key of a turn that names who speaks.
        content_tag: The key of a turn that holds what was said.
        roles: What the names under ``role_tag`` mean.
    """

    format: Format
    prompt: str
    answer: str = ""
    query: str = ""
    tests: str = ""
    history: str = ""
    system: str = "system"
    role_tag: str = "role"
    content_tag: str = "content"
    roles: Mapping[str, Role] = field(default_factory=lambda: MESSAGE_ROLES)

    def required(self) -> tuple[str, ...]:
        """The fields that every row must have."""
        return tuple(filter(None, (self.prompt, self.answer, self.tests)))

    def read(self) -> frozenset[str]:
        """The fields that are looked at, beside a row's id, group and category."""
        if self.format == "text":
            return frozenset((self.prompt,))
        named = (self.prompt, self.answer, self.query, self.history, self.system)
        return frozenset((*named, *TEST_FIELDS, "references", "source"))


LAYOUTS: dict[Format, Layout] = {
    layout.format: layout
    for layout in (
        Layout("messages", "messages"),
        Layout("sharegpt", "conversations", role_tag="from", content_tag="value", roles=SHAREGPT_ROLES),
        Layout("alpaca", "instruction", "output", query="input", history="history"),
        Layout("prompt-completion", "prompt", "completion"),
        Layout("prompt-response", "prompt", "response"),
        Layout("prompt-references", "prompt", "references"),
        Layout("text", "text"),
        Layout("preference", "chosen", "rejected", query="prompt"),
        Layout("mbpp", "text", "code", tests="test_list"),
        Layout("humaneval", "prompt", "canonical_solution", tests="test"),
    )
}
"""The default names of every format."""

_MORE_THAN_AN_ANSWER: tuple[Format, ...] = ("preference", "mbpp", "humaneval")
"""Rows of these may look like those of another format, too, so these are looked for first."""


def format_of(row: dict[str, Any]) -> Format | None:
    """The first format whose fields the row has; None where it has those of none."""
    for layout in sorted(LAYOUTS.values(), key=lambda layout: layout.format not in _MORE_THAN_AN_ANSWER):
        if all(row.get(key) is not None for key in layout.required()):
            return layout.format
    return None


class Answer(NamedTuple):
    """A turn to be learned and judged: what comes before it, what may be said, and the text that it works on."""

    messages: tuple[Message, ...]
    references: tuple[str, ...]
    source: str


class Draft(NamedTuple):
    """What one row gives: its answers, and what they share.

    Attributes:
        id: The row's own; "" where it has none.
        content: All that the row says, as JSON has it; an id can be made from it.
        group: The row's own, or one made from the normalised source.
        category: The row's own, or ``all``.
        answers: In the order of the conversation; at least one.
        rejected: What was liked less than the last answer.
        tests: Python code that checks the last answer (:mod:`whetstone.data.tests`).
    """

    id: str
    content: list[Any]
    group: str
    category: str
    answers: tuple[Answer, ...]
    rejected: tuple[str, ...] = ()
    tests: str | None = None


class Parser:
    """Reads rows of one layout. Texts that rows share (the system turn, categories) are held once."""

    def __init__(self, data: Data, layout: Layout) -> None:
        self._data = data
        self._layout = layout
        self._before, _, self._after = data.prompt.partition("{source}")
        self._system = Message("system", data.system or "")

    def __call__(self, row: dict[str, Any]) -> Draft:
        """Reads one row.

        Raises:
            RowError: A field is missing or has the wrong type, or the conversation does not end with an answer.
        """
        draft = self._read(row)
        tests = None if self._layout.format == "text" else tests_of(row)
        return draft if tests is None else draft._replace(content=[*draft.content, tests], tests=tests)

    def _read(self, row: dict[str, Any]) -> Draft:
        layout = self._layout
        match layout.format:
            case "preference":
                return self._pair(row)
            case "mbpp":
                asserts = "\n".join(map(str, list_of(row, layout.tests)))
                task = text_of(row, layout.prompt)
                return self._asked(row, f"{task}\nThe code must pass:\n{asserts}", text_of(row, layout.answer))
            case "humaneval":
                head = text_of(row, layout.prompt)
                return self._asked(row, head, head + text_of(row, layout.answer))
            case "messages" | "sharegpt":
                return self._conversation(row, self._turns(row, layout.prompt), None)
            case "alpaca":
                return self._instruction(row)
            case "text":
                return self._plain(row)
            case "prompt-completion" if isinstance(row.get(layout.prompt), list):
                turns = self._turns(row, layout.prompt)
                return self._conversation(
                    row, [*turns, *self._turns(row, layout.answer)], None, first_answer=len(turns)
                )
            case _:
                return self._question(row)

    def _plain(self, row: dict[str, Any]) -> Draft:
        text = text_of(row, self._layout.prompt)
        return self._draft(row, (Answer((), (text,), text),), [text], text)

    def _question(self, row: dict[str, Any]) -> Draft:
        layout = self._layout
        source = text_of(row, layout.prompt)
        if layout.answer == "references":
            answer, *_ = references_of(row, layout.answer)
        else:
            answer = text_of(row, layout.answer)
        return self._asked(row, source, answer)

    def _asked(self, row: dict[str, Any], source: str, answer: str) -> Draft:
        """A prompt that ``data.prompt`` goes around, and its answer."""
        # The same string as the source, not an equal one, where nothing is put around it.
        prompt = source if self._data.prompt == "{source}" else self._data.prompt.replace("{source}", source)
        draft = self._conversation(row, [Message("user", prompt), Message("assistant", answer)], source)
        # Without what the experiment adds, so that another prompt leaves the names as they are.
        return draft._replace(content=[source, *draft.content[1:]])

    def _pair(self, row: dict[str, Any]) -> Draft:
        """A chosen and a rejected answer: texts after a prompt, or conversations that differ in their last turn."""
        layout = self._layout
        prompt, chosen = row.get(layout.query), row.get(layout.prompt)
        if isinstance(prompt, str) and isinstance(chosen, str):
            draft, rejected = self._asked(row, prompt, chosen), text_of(row, layout.answer)
        else:
            turns = self._side(row, layout.prompt)
            rejected = rejected_answer(turns, self._side(row, layout.answer))
            draft = self._conversation(row, turns, None, first_answer=len(turns) - 1)
        check_differs(draft.answers[-1].references, rejected)
        return draft._replace(content=[*draft.content, rejected], rejected=(rejected,))

    def _side(self, row: dict[str, Any], key: str) -> list[Message]:
        """The whole conversation of one side of a pair; a prompt that it does not begin with comes before it."""
        prompt = row.get(self._layout.query)
        turns = self._turns(row, self._layout.query) if isinstance(prompt, list) else []
        if not isinstance(row.get(key), list):
            answer = text_of(row, key)
            return [*turns, Message("assistant", answer)] if turns else transcript(answer, key)
        side = self._turns(row, key)
        if isinstance(prompt, str) and not any(turn.role == "user" for turn in side):
            turns = [Message("user", self._data.prompt.replace("{source}", prompt))]
        return side if side[: len(turns)] == turns else [*turns, *side]

    def _instruction(self, row: dict[str, Any]) -> Draft:
        """Alpaca's row; instruction and input make one turn, a line each.

        Source: https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md (alpaca format).
        """
        layout = self._layout
        instruction = text_of(row, layout.prompt)
        query = optional_text(row, layout.query)
        turns = []
        for number, pair in enumerate(optional_list(row, layout.history)):
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise RowError(
                    f"{layout.history}[{number}]: expected a question and its answer, found {kind(pair)}; give both"
                )
            turns += [Message("user", pair[0]), Message("assistant", pair[1])]
        turns.append(Message("user", f"{instruction}\n{query}" if query else instruction))
        turns.append(Message("assistant", text_of(row, layout.answer)))
        return self._conversation(row, turns, query or instruction)

    def _conversation(
        self, row: dict[str, Any], turns: Sequence[Message], source: str | None, first_answer: int = 0
    ) -> Draft:
        """Makes an answer of every assistant turn that a question comes before, or of the last one only.

        Args:
            row: For the fields that every format may have.
            turns: The conversation; its system turn may be among them.
            source: What the last answer works on, where the format says it.
            first_answer: The turns before this one are given, not to be learned.
        """
        users = [turn.content for turn in turns if turn.role == "user"]
        if len(turns) <= first_answer or turns[-1].role != "assistant":
            found = f"the {turns[-1].role}'s turn" if len(turns) > first_answer else "no turn"
            raise RowError(f"expected the assistant's turn at the end, found {found}; add the answer")
        if not users:
            raise RowError("expected a user's turn before the answer, found none; add the question")
        front = () if any(turn.role == "system" for turn in turns) else self._system_turns(row)
        given = optional_text(row, "source")
        more = references_of(row, "references") if row.get("references") not in (None, "") else ()
        last = len(turns) - 1
        first = first_answer if self._data.turns == "all" else last
        question: str | None = None
        answers = []
        for index, turn in enumerate(turns):
            if turn.role == "user":
                question = turn.content
            elif turn.role == "assistant" and question is not None and index >= first:
                bare = self._bare(question)
                works_on = source if index == last and source is not None else bare
                if given and _works_on(given, question, bare):
                    works_on = given
                references = tuple(dict.fromkeys((turn.content, *more))) if index == last else (turn.content,)
                answers.append(Answer((*front, *turns[:index]), references, works_on))
        said = [part for turn in turns[:-1] for part in (turn.role, turn.content)]
        system = optional_text(row, self._layout.system)
        content = [said, source, first_answer, system, answers[-1].references, given]
        origin = answers[-1].source if len(users) == 1 else self._opening(users)
        return self._draft(row, tuple(answers), content, origin)

    def _opening(self, users: Sequence[str]) -> str:
        """What a user says first, as many turns of it as tell a conversation from others."""
        opening = ""
        for turn in users:
            opening = f"{opening}\n{self._bare(turn)}".strip()
            if len(opening) >= _GROUP_CHARS:
                break
        return opening

    def _draft(self, row: dict[str, Any], answers: tuple[Answer, ...], content: list[Any], origin: str) -> Draft:
        """Adds what every format may have; ``origin`` is the text that the group is made from."""
        data = self._data
        group = sys.intern(label_of(row, data.group, is_named=data.group != "group"))
        category = sys.intern(label_of(row, data.category, is_named=data.category != "category"))
        return Draft(
            id=label_of(row, "id", is_named=False),
            content=[*content, group, category],
            group=group or stable_hash(normalised(origin))[:12],
            category=category or "all",
            answers=answers,
        )

    def _system_turns(self, row: dict[str, Any]) -> tuple[Message, ...]:
        """The system turn to put in front of a conversation that has none: the row's, else the experiment's."""
        if text := optional_text(row, self._layout.system):
            return (self._message("system", text),)
        return (self._message("system", self._data.system),) if self._data.system is not None else ()

    def _turns(self, row: dict[str, Any], column: str) -> list[Message]:
        """The turns of a conversation; a blank system turn, which many exports write, is none."""
        turns = []
        for number, turn in enumerate(list_of(row, column)):
            try:
                message = self._turn(turn)
            except RowError as error:
                raise RowError(f"{column}[{number}]: {error}") from None
            if message.role != "system" or message.content.strip():
                turns.append(message)
        return turns

    def _turn(self, turn: Any) -> Message:
        layout = self._layout
        if not isinstance(turn, dict):
            raise RowError(f"expected an object, found {kind(turn)}; give {layout.role_tag} and {layout.content_tag}")
        name = text_of(turn, layout.role_tag)
        role = layout.roles.get(name)
        if role is None:
            known = ", ".join(layout.roles)
            raise RowError(f"expected one of the roles {known}, found '{excerpt(name)}'; leave the row out")
        return self._message(role, text_of(turn, layout.content_tag))

    def _message(self, role: Role, content: str) -> Message:
        if role != "system":
            return Message(role, content)
        if content != self._system.content:
            self._system = Message(role, content)
        return self._system

    def _bare(self, turn: str) -> str:
        """The text inside a user turn that was made with ``data.prompt``; the whole turn where it was not."""
        before, after = self._before, self._after
        if turn.startswith(before) and turn.endswith(after) and len(turn) >= len(before) + len(after):
            return turn[len(before) : len(turn) - len(after)]
        return turn


def _works_on(given: str, question: str, bare: str) -> bool:
    """Whether the field ``source`` holds what a question is about, and not the name of the place that a row is from.

    Both are common. A place has a name of one word, which may well stand in the question too ("code", "math"), so one
    word must be half of the question at least.
    """
    return given in question and (len(given) * 2 >= len(bare) or not _ONE_WORD.fullmatch(given))
