"""Proves on real rows that training, evaluation and serving see the same, and that what is learned is the answer.

Notable: it looks at final ids and labels and never at how they were made, so it does not share the mistakes of the code
that made them; what it needs to know of a template it finds out by rendering a conversation of its own.
"""

import random
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from whetstone.data.example import Example
from whetstone.data.finding import EXAMPLES_SHOWN, Finding, Severity, excerpt
from whetstone.data.template import Template, special_pattern, special_tokens
from whetstone.data_section import Data, FindingCode
from whetstone.train.batch import IGNORE, collate, make_rows
from whetstone.train.faults import SAID, Fault
from whetstone.tune_section import Tune

__all__ = ["ROWS_AUDITED", "AuditedRow", "TokenView", "as_served", "audit", "audit_rows", "follow_rows", "view_tokens"]

ROWS_AUDITED = 64
"""How many rows of a part are looked at; a fault of a template shows in every row."""

_NO_LIMIT = 2**31 - 1
_ANSWER = "audited answer"


@dataclass(frozen=True, slots=True)
class AuditedRow:
    """One training sequence as it leaves the collator, and its prompt as the other stages make it.

    Attributes:
        example: Where it comes from.
        reference: The answer that it teaches.
        input_ids: What the model reads, without padding.
        labels: What the model learns at each position.
        evaluation_prompt_ids: The prompt as evaluation asks it.
        served_prompt_ids: The prompt as a server renders it that knows only what is saved beside the weights.
        truncated: Whether the end of the answer was cut off, as the experiment wants it.
    """

    example: Example
    reference: str
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    evaluation_prompt_ids: tuple[int, ...]
    served_prompt_ids: tuple[int, ...]
    truncated: bool = False


class TokenView(NamedTuple):
    """One token for the eye: its text with white space made visible, whether it is learned, whether it is special."""

    text: str
    learned: bool
    special: bool


def as_served(template: Template) -> Template:
    """The template as a server has it: the tokenizer saved, loaded again, and nothing else known."""
    with tempfile.TemporaryDirectory() as folder:
        template.tokenizer.save_pretrained(folder)
        return Template(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))


def audit_rows(
    examples: Sequence[Example], template: Template, data: Data, tune: Tune, context_tokens: int, served: Template
) -> list[AuditedRow]:
    """Follows some rows of a part: the first, the shortest, the longest, and a random choice; see :func:`follow_rows`.

    Raises:
        UserError: The template cannot render an example.
    """
    return follow_rows(_sample(examples), template, data, tune, context_tokens, served)[:ROWS_AUDITED]


def follow_rows(
    examples: Sequence[Example], template: Template, data: Data, tune: Tune, context_tokens: int, served: Template
) -> list[AuditedRow]:
    """Makes rows the way each stage makes them.

    Rows that are too long are followed whole, since their length is another check's business; where the experiment
    truncates them, they are truncated, and those of which nothing of the answer is left are left out.

    Args:
        examples: What to follow.
        template: What training and evaluation render with.
        data: The length policy.
        tune: Which references are learned.
        context_tokens: The longest sequence that the model takes.
        served: What :func:`as_served` gave.

    Raises:
        UserError: The template cannot render an example.
    """
    pairs = [
        (example, reference)
        for example in examples
        for reference in (example.references if tune.references == "all" else example.references[:1])
    ]
    if data.too_long != "truncate":
        data, context_tokens = data.model_copy(update={"max_tokens": _NO_LIMIT}), _NO_LIMIT
    alone = [replace(pair[0], id=str(index), references=(pair[1],)) for index, pair in enumerate(pairs)]
    rows = make_rows(alone, template, data, tune, context_tokens).rows
    if not rows:
        return []
    batch = collate(rows, template.tokenizer.pad_token_id or 0)
    audited = []
    for index, row in enumerate(rows):
        example, reference = pairs[int(row.example)]
        real = batch["attention_mask"][index].bool()
        audited.append(
            AuditedRow(
                example=example,
                reference=reference,
                input_ids=tuple(batch["input_ids"][index][real].tolist()),
                labels=tuple(batch["labels"][index][real].tolist()),
                evaluation_prompt_ids=tuple(template.prompt_ids(example.messages)),
                served_prompt_ids=tuple(served.prompt_ids(example.messages)),
                truncated=row.truncated,
            )
        )
    return audited


def audit(
    rows: Sequence[AuditedRow],
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: Collection[int],
    end_ids: Collection[int],
) -> list[Finding]:
    """Looks for everything that would train a model other than the one that is asked.

    Args:
        rows: Of any part.
        tokenizer: With its chat template.
        stop_ids: The tokens that the engine stops at.
        end_ids: The tokens that the model's own generation settings end with.

    Returns:
        Errors first; each with the first examples that show it.
    """
    auditor = _Auditor(tokenizer, stop_ids, end_ids)
    details: dict[tuple[FindingCode, Severity], list[str]] = {}
    for row in rows:
        for fault in auditor.faults(row):
            details.setdefault((fault.code, fault.severity), []).append(f"{row.example.id}: {fault.detail}")
    found = [(key, details[key]) for key in SAID if key in details]
    order: list[Severity] = ["error", "warning", "note"]
    return [
        Finding(
            code=code,
            severity=severity,
            count=len(shown),
            total=len(rows),
            message=f"In {len(shown)} of {len(rows)} audited rows {SAID[code, severity][0]}.",
            mend=SAID[code, severity][1],
            examples=tuple(shown[:EXAMPLES_SHOWN]),
        )
        for (code, severity), shown in sorted(found, key=lambda entry: order.index(entry[0][1]))
    ]


def view_tokens(row: AuditedRow, tokenizer: PreTrainedTokenizerBase) -> list[TokenView]:
    """A row token by token: ``·`` is a space, ``⏎`` a line feed, ``⇥`` a tab, ``�`` a part of a character."""
    special = set(special_tokens(tokenizer).values())
    views, before = [], ""
    for end, (token_id, label) in enumerate(zip(row.input_ids, row.labels, strict=True), 1):
        # Decoded with all tokens before it: alone, a token of SentencePiece loses its space.
        text = _decode(tokenizer, row.input_ids[:end], keep_special=True)
        new = text[_agreement(before, text) :]
        shown = new.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")
        views.append(TokenView(shown, label != IGNORE, token_id in special))
        before = text.rstrip("�")
    return views


class _Auditor:
    """Looks at one row after another."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Collection[int], end_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._stop_ids, self._end_ids = stop_ids, end_ids
        self._special = special_tokens(tokenizer)
        self._special_ids = set(self._special.values())
        self._pattern = special_pattern(self._special)
        self._end_id = self._find_end()

    def faults(self, row: AuditedRow) -> Iterator[Fault]:
        """Everything that is wrong with a row."""
        yield from self._mask(row)
        if any(label != IGNORE for label in row.labels) and not row.truncated:
            yield from self._end(row)
        yield from self._start(row)
        yield from self._stages(row)
        unknown = list(self._unknown(row))
        yield from unknown or self._text(row)
        yield from self._special_in_text(row)

    def _mask(self, row: AuditedRow) -> Iterator[Fault]:
        learned = {index for index, label in enumerate(row.labels) if label != IGNORE}
        wrong = [index for index in sorted(learned) if row.labels[index] != row.input_ids[index]]
        start = len(row.evaluation_prompt_ids)
        # The end of the turn has a code of its own.
        answer = range(start, len(row.input_ids) - (not row.truncated))
        masked = [index for index in answer if index not in learned]
        if not learned:
            yield Fault("mask-empty", "error", f"none of its {len(row.labels)} tokens is learned")
        elif wrong:
            read, taught = self._name(row.input_ids[wrong[0]]), self._name(row.labels[wrong[0]])
            yield Fault("mask-wrong", "error", f"position {wrong[0]} reads {read}, but learns {taught}")
        elif min(learned) < start:
            count = sum(index < start for index in learned)
            yield Fault("mask-wrong", "error", f"{count} of {start} tokens of its prompt are learned")
        elif masked:
            first = self._name(row.input_ids[masked[0]])
            yield Fault("mask-wrong", "error", f"{len(masked)} tokens of its answer are masked, the first is {first}")

    def _end(self, row: AuditedRow) -> Iterator[Fault]:
        last = row.input_ids[-1]
        # Plain text has no turn: any special token ends it.
        end = self._end_id if row.example.messages or last not in self._special_ids else last
        if last != end:
            detail = f"it ends with {self._name(last)} instead of {self._name(end)}"
            yield Fault("end-of-turn-not-learned", "error", detail)
        elif row.labels[-1] == IGNORE:
            pad = ", which is the pad token too," if end == self._tokenizer.pad_token_id else ""
            yield Fault("end-of-turn-not-learned", "error", f"its end {self._name(end)}{pad} is masked")
        if end not in self._stop_ids:
            stops = ", ".join(self._name(token_id) for token_id in sorted(self._stop_ids)) or "nothing"
            yield Fault("end-of-turn-does-not-stop", "error", f"it ends with {self._name(end)}, the engine at {stops}")
        elif end not in self._end_ids:
            ends = ", ".join(self._name(token_id) for token_id in sorted(self._end_ids)) or "nothing"
            detail = f"it ends with {self._name(end)} (id {end}), generation_config.json names {ends}"
            yield Fault("end-of-turn-does-not-stop", "warning", detail)

    def _start(self, row: AuditedRow) -> Iterator[Fault]:
        stages = {
            "training": row.input_ids[:-1],  # an empty text is nothing but its start and its end
            "evaluation": row.evaluation_prompt_ids,
            "serving": row.served_prompt_ids,
        }
        doubled = [stage for stage, ids in stages.items() if self._is_doubled(ids)]
        if doubled:
            first = stages[doubled[0]]
            shown = " ".join(self._name(token_id) for token_id in first[:3])
            yield Fault("start-doubled", "error", f"{' and '.join(doubled)} start with {shown}")
        elif row.example.messages and self._is_doubled(self._tokenizer(self._rendered(row)).input_ids):
            yield Fault("start-doubled", "note", f"with {self._name(row.input_ids[0])}")

    def _stages(self, row: AuditedRow) -> Iterator[Fault]:
        asked = row.evaluation_prompt_ids
        for stage, ids in (("training", row.input_ids[: len(asked)]), ("serving", row.served_prompt_ids)):
            if ids != asked:
                at = _agreement(ids, asked)
                here, there = (self._name(seen[at]) if at < len(seen) else "the end" for seen in (ids, asked))
                yield Fault(
                    "stages-differ", "error", f"at position {at} {stage} has {here} where evaluation has {there}"
                )
                return

    def _unknown(self, row: AuditedRow) -> Iterator[Fault]:
        unknown = self._tokenizer.unk_token_id
        # In some byte-level vocabularies one token is start, end and unknown, and no text is unknown.
        if unknown is None or unknown in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            return
        count = row.input_ids.count(unknown)
        if count:
            severity: Severity = "error" if unknown in row.labels else "warning"
            share = count / len(row.input_ids)
            yield Fault("unknown-token", severity, f"{count} of {len(row.input_ids)} tokens are unknown ({share:.1%})")

    def _text(self, row: AuditedRow) -> Iterator[Fault]:
        start = len(row.evaluation_prompt_ids)
        said = _decode(self._tokenizer, row.input_ids[start:]).strip()
        wanted = row.reference.strip()
        if row.truncated:
            said = said.rstrip("�").rstrip()
            wanted = wanted[: len(said)]
        if said != wanted:
            yield self._changed(wanted, said, _decode(self._tokenizer, self._ids_of_text(wanted)).strip())
        elif row.example.messages:
            rendered = self._rendered(row)
            # Decoders of SentencePiece put spaces round special tokens; white space is no evidence here.
            shown = "".join(_decode(self._tokenizer, row.input_ids[:start], keep_special=True).split())
            if shown != "".join(rendered.split()):
                ids = self._tokenizer(rendered, add_special_tokens=False).input_ids
                again = "".join(_decode(self._tokenizer, ids, keep_special=True).split())
                yield self._changed("".join(rendered.split()), shown, again)

    def _special_in_text(self, row: AuditedRow) -> Iterator[Fault]:
        start, ignored = len(row.evaluation_prompt_ids), self._tokenizer.unk_token_id
        inner = row.input_ids[start:] if row.truncated else row.input_ids[start:-1]
        became = [token_id for token_id in inner if token_id in self._special_ids and token_id != ignored]
        quoted = [found for turn in row.example.messages for found in self._pattern.findall(turn.content)]
        if quoted:
            neutral = [
                {"role": turn.role, "content": self._pattern.sub("x", turn.content)} for turn in row.example.messages
            ]
            ids = self._tokenizer.apply_chat_template(neutral, add_generation_prompt=True, return_dict=False)
            prompt = row.input_ids[:start]
            became += [self._special[q] for q in quoted if prompt.count(self._special[q]) > ids.count(self._special[q])]
        quoted += self._pattern.findall(row.reference)
        if became:
            yield Fault("special-token-in-text", "error", f"its text became the token {self._name(became[0])}")
        elif quoted:
            yield Fault("special-token-in-text", "warning", f"its text has {quoted[0]!r}")

    def _find_end(self) -> int | None:
        """The special token that the template writes after an answer; the EOS token where it writes none."""
        turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _ANSWER}]
        whole = str(self._tokenizer.apply_chat_template(turns, tokenize=False))
        found = self._pattern.search(whole.rpartition(_ANSWER)[2])
        if found:
            return self._special[found.group()]
        end: int | None = self._tokenizer.eos_token_id
        return end

    def _rendered(self, row: AuditedRow) -> str:
        turns = [turn.as_dict() for turn in row.example.messages]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _is_doubled(self, ids: Sequence[int]) -> bool:
        """The same special token twice, with nothing or only a blank (``<s> <s>``) between them."""
        if len(ids) < 2 or ids[0] not in self._special_ids:
            return False
        return ids[1] == ids[0] or (ids[2:3] == ids[:1] and not _decode(self._tokenizer, ids[1:2]).strip())

    def _ids_of_text(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        return ids

    def _changed(self, wanted: str, said: str, normalised: str) -> Fault:
        at = max(_agreement(wanted, said) - 10, 0)
        detail = f"'{excerpt(wanted[at : at + 40])}' became '{excerpt(said[at : at + 40])}'"
        return Fault("text-changed", "warning" if said == normalised else "error", detail)

    def _name(self, token_id: int | None) -> str:
        return "nothing" if token_id is None else repr(self._tokenizer.convert_ids_to_tokens(token_id))


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, keep_special: bool = False) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=not keep_special, clean_up_tokenization_spaces=False)
    return str(text)


def _agreement(first: Sequence[object], second: Sequence[object]) -> int:
    """How many elements agree before the first difference."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _sample(examples: Sequence[Example]) -> list[Example]:
    """The first, the shortest, the longest, and others by chance, the same ones each time."""
    if not examples:
        return []
    sizes = [
        sum(len(turn.content) for turn in example.messages) + sum(map(len, example.references)) for example in examples
    ]
    ends = [0, sizes.index(min(sizes)), sizes.index(max(sizes))]
    count = min(ROWS_AUDITED, len(examples))
    chosen = dict.fromkeys([*ends, *random.Random(0).sample(range(len(examples)), count)])
    return [examples[index] for index in list(chosen)[:count]]
