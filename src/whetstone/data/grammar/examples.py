"""The embedded corpus as examples: corrections to tune on, and plain instructions to make a base model with.

The instructions teach to write clean sentences, to copy (mistakes included), to finish, to fill gaps and to answer in
a format; none of them corrects. They never use a test cell for writing, so a base made with them has read the words of
the test examples, but none of their sentences.
"""

from collections.abc import Callable, Sequence
from random import Random

from whetstone.data.example import Example, Message, normalised
from whetstone.data.grammar.corpus import Cell, CleanSentence, clean_sentences, corrections, split_cells
from whetstone.data.sources import ask
from whetstone.data.split import Splits
from whetstone.data_section import Data, GrammarSource

__all__ = ["correction_splits", "instruction_splits"]

Instruction = Callable[[CleanSentence, Random], tuple[str, str]]
"""Makes a question and its answer from a clean sentence."""


def correction_splits(data: Data, source: GrammarSource) -> Splits:
    """Learner sentences with their corrections; the vocabulary of the test part is in no training example."""
    cells = split_cells(source.seed)
    return Splits(
        train=_corrections(data, cells.train, source.train, source.seed, "train"),
        validation=_corrections(data, cells.validation, source.validation, source.seed, "validation"),
        test=_corrections(data, cells.test, source.test, source.seed, "test"),
    )


def instruction_splits(data: Data, source: GrammarSource) -> Splits:
    """Plain instructions with their answers; the test part holds only those that have one right answer.

    A question that training has asked ("Write a sentence about the garden.") is left out of the validation part.
    """
    cells = split_cells(source.seed)
    train = _instructions(data, (*cells.train, *cells.mixed), source.train, source.seed, "train")
    asked = {normalised(example.source) for example in train}
    validation = _instructions(data, cells.validation, source.validation, source.seed, "validation")
    return Splits(
        train=train,
        validation=tuple(example for example in validation if normalised(example.source) not in asked),
        test=_exact_instructions(data, cells.test, source.test, source.seed),
    )


def _corrections(data: Data, cells: Sequence[Cell], count: int, seed: int, part: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            id=f"{part}-{number:05d}",
            messages=ask(data, made.source),
            references=made.references,
            source=made.source,
            group=f"{made.frame}/{made.theme}",
            category=made.errors[0] if made.errors else "already right",
        )
        for number, made in enumerate(corrections(cells, count, seed))
    )


def _instructions(data: Data, cells: Sequence[Cell], count: int, seed: int, part: str) -> tuple[Example, ...]:
    """Seven in ten from clean sentences, three in ten copies of what learners wrote."""
    rng = Random(f"instructions:{part}:{seed}")
    copies = corrections(cells, count * 3 // 10, seed)
    sentences = clean_sentences(cells, count - len(copies), seed)
    made = [(*_copy_text(copy.source), f"{copy.frame}/{copy.theme}", "copy") for copy in copies]
    weights = [weight for _, weight in _INSTRUCTIONS.values()]
    names = rng.choices(list(_INSTRUCTIONS), weights, k=len(sentences))
    for sentence, name in zip(sentences, names, strict=True):
        instruction, _ = _INSTRUCTIONS[name]
        made.append((*instruction(sentence, rng), f"{sentence.frame}/{sentence.theme}", name))
    rng.shuffle(made)
    return tuple(_example(data, f"{part}-{number:05d}", *one) for number, one in enumerate(made))


def _exact_instructions(data: Data, cells: Sequence[Cell], count: int, seed: int) -> tuple[Example, ...]:
    rng = Random(f"instructions:test:{seed}")
    examples = []
    for number, sentence in enumerate(clean_sentences(cells, count, seed + 1)):
        name = rng.choice(["copy", "quote", "first word", "last word"])
        question, answer = _INSTRUCTIONS[name][0](sentence, rng)
        group = f"{sentence.frame}/{sentence.theme}"
        examples.append(_example(data, f"test-{number:05d}", question, answer, group, name))
    return tuple(examples)


def _example(data: Data, name: str, question: str, answer: str, group: str, category: str) -> Example:
    turns = [Message("system", data.system)] if data.system is not None else []
    return Example(name, (*turns, Message("user", question)), (answer,), question, group, category)


def _copy_text(text: str) -> tuple[str, str]:
    return f"Copy: {text}", text


def _write(sentence: CleanSentence, _: Random) -> tuple[str, str]:
    return f"Write a sentence about the {sentence.theme}.", sentence.text


def _copy(sentence: CleanSentence, _: Random) -> tuple[str, str]:
    return _copy_text(sentence.text)


def _copy_shuffled(sentence: CleanSentence, rng: Random) -> tuple[str, str]:
    """Words in no order: they can only be copied, not guessed."""
    words = sentence.text.split()
    return _copy_text(" ".join(rng.sample(words, len(words))))


def _finish(sentence: CleanSentence, rng: Random) -> tuple[str, str]:
    words = sentence.text.split()
    return f"Finish: {' '.join(words[: rng.randrange(1, len(words))])}", sentence.text


def _fill(sentence: CleanSentence, rng: Random) -> tuple[str, str]:
    words = sentence.text.split()
    words[rng.randrange(len(words))] = "_"
    return f"Fill the gap: {' '.join(words)}", sentence.text


def _order(sentence: CleanSentence, rng: Random) -> tuple[str, str]:
    words = sentence.text.split()
    return f"Put in order: {' '.join(rng.sample(words, len(words)))}", sentence.text


def _replace(sentence: CleanSentence, rng: Random) -> tuple[str, str]:
    """Copying with an edit at a place that has to be found."""
    words = sentence.text.split()
    old, new = rng.sample(words, 2)
    edited = " ".join(new if word == old else word for word in words)
    return f"Put {new} for {old}: {sentence.text}", edited


def _leave_out(sentence: CleanSentence, rng: Random) -> tuple[str, str]:
    words = sentence.text.split()
    out = rng.choice(words)
    return f"Leave out {out}: {sentence.text}", " ".join(word for word in words if word != out)


def _quote(sentence: CleanSentence, _: Random) -> tuple[str, str]:
    return f"Put in quotes: {sentence.text}", f'"{sentence.text}"'


def _first_word(sentence: CleanSentence, _: Random) -> tuple[str, str]:
    return f"Give the first word: {sentence.text}", sentence.text.split()[0]


def _last_word(sentence: CleanSentence, _: Random) -> tuple[str, str]:
    return f"Give the last word: {sentence.text}", sentence.text.split()[-1]


_INSTRUCTIONS: dict[str, tuple[Instruction, int]] = {
    "write": (_write, 2),
    "copy": (_copy, 1),
    "copy shuffled": (_copy_shuffled, 5),
    "replace": (_replace, 3),
    "leave out": (_leave_out, 3),
    "put in order": (_order, 4),
    "finish": (_finish, 1),
    "fill": (_fill, 3),
    "quote": (_quote, 1),
    "first word": (_first_word, 1),
    "last word": (_last_word, 1),
}
"""Each with its weight in the mixture: copying what cannot be guessed is the hardest to learn."""
