"""Training sets of what people thought of answers: what is in them, what is not, and that they are read back."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from whetstone.data.feedback_file import open_feedback, reading_feedback
from whetstone.data.from_feedback import FeedbackSet, examples_of_feedback, pairs_of_feedback
from whetstone.data.load import load_splits
from whetstone.data_section import Data
from whetstone.errors import UserError
from whetstone.files import write_jsonl

SYSTEM = {"role": "system", "content": "Correct the sentence."}


class Said(NamedTuple):
    """A rating, and the answer that it is of."""

    prompt: Any
    text: str
    rating: str
    correction: str | None = None
    by: str = "alice"
    answer_id: str | None = None
    model: str = "demo"
    finish_reason: str = "stop"


def chat(*texts: str) -> list[dict[str, str]]:
    roles = ["user", "assistant"] * len(texts)
    return [SYSTEM, *({"role": role, "content": text} for role, text in zip(roles, texts, strict=False))]


def feedback(path: Path, said: Iterable[Said], *, store_prompts: bool = True) -> Path:
    """A file as a server writes it; hashes are stood in for by the texts themselves."""
    connection = open_feedback(path)
    for number, one in enumerate(said):
        name = one.answer_id or f"a{number}"
        prompt = json.dumps(one.prompt)
        kept = (prompt, one.text) if store_prompts else (None, None)
        hashes = (f"hash {prompt}", f"hash {one.text}")
        about = (name, 0, 0.0, "chat", one.model, "torch", "f", "alice", *hashes, one.finish_reason, *kept)
        connection.execute(f"INSERT OR IGNORE INTO answers VALUES ({', '.join('?' * len(about))})", about)
        row = (None, name, 0, one.by, 0.0, one.rating, one.correction, None)
        connection.execute(f"INSERT INTO feedback VALUES ({', '.join('?' * len(row))})", row)
    connection.close()
    return path


def examples(path: Path, *said: Said) -> FeedbackSet:
    return examples_of_feedback(feedback(path, said))


def pairs(path: Path, *said: Said) -> FeedbackSet:
    return pairs_of_feedback(feedback(path, said))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feedback.db"


def test_a_good_answer_and_a_correction_become_examples(path: Path) -> None:
    made = examples(
        path,
        Said(chat("He go."), "He goes.", "good"),
        Said(chat("She go."), "She go.", "correction", "She goes."),
        Said(chat("It go."), "It go.", "bad"),
    )
    by_prompt = {row["prompt"][-1]["content"]: row for row in made.rows}
    assert {name: (row["completion"], row["references"], row["category"]) for name, row in by_prompt.items()} == {
        "He go.": ([{"role": "assistant", "content": "He goes."}], ["He goes."], "good"),
        "She go.": ([{"role": "assistant", "content": "She goes."}], ["She goes."], "correction"),
    }
    assert by_prompt["He go."]["prompt"] == chat("He go.")
    assert (made.rated, made.left_out) == (3, {"rated bad, without a correction": 1})


def test_answers_to_one_prompt_are_references_of_one_example(path: Path) -> None:
    made = examples(
        path,
        Said(chat("He go."), "He went.", "good"),
        Said(chat("He go."), "He goes.", "good"),
        Said(chat("He go."), "He goed.", "correction", "He goes now."),
        Said(chat("He go."), "Him go.", "bad", "He goes."),
    )
    (row,) = made.rows
    assert row["references"] == ["He goes now.", "He goes.", "He went."]
    assert row["completion"][0]["content"] == "He goes now."
    assert (row["category"], made.left_out) == ("correction", {})


def test_only_what_is_included(path: Path) -> None:
    feedback(path, [Said(chat("a"), "b", "good"), Said(chat("c"), "d", "correction", "e")])
    for rating, completion in (("good", "b"), ("correction", "e")):
        made = examples_of_feedback(path, [rating])  # type: ignore[list-item]
        assert [row["references"] for row in made.rows] == [[completion]]
        assert made.left_out == {"with a rating that is not included": 1}


def test_only_answers_of_a_model(path: Path) -> None:
    feedback(path, [Said(chat("a"), "b", "good"), Said(chat("a"), "c", "good", model="other")])
    assert [row["references"] for row in examples_of_feedback(path, model="other").rows] == [["c"]]
    assert examples_of_feedback(path, model="none") == FeedbackSet((), 0, {})


def test_the_last_rating_of_a_principal_holds(path: Path) -> None:
    made = examples(
        path,
        Said(chat("a"), "b", "bad", answer_id="1"),
        Said(chat("a"), "b", "good", answer_id="1"),
        Said(chat("c"), "d", "good", answer_id="2"),
        Said(chat("c"), "d", "correction", "e", answer_id="2"),
        Said(chat("c"), "d", "correction", "f", answer_id="2"),
    )
    assert sorted(row["references"] for row in made.rows) == [["b"], ["f"]]
    assert (made.rated, made.left_out) == (2, {})


def test_an_answer_that_people_do_not_agree_on_is_left_out(path: Path) -> None:
    made = examples(
        path,
        Said(chat("a"), "b", "good", answer_id="1"),
        Said(chat("a"), "b", "bad", answer_id="1", by="root"),
        # The same answer, given again.
        Said(chat("c"), "d", "good"),
        Said(chat("c"), "d", "correction", "e", by="bob"),
        # Who corrects an answer and who finds it bad agree.
        Said(chat("f"), "g", "correction", "h", answer_id="2"),
        Said(chat("f"), "g", "bad", answer_id="2", by="root"),
    )
    assert [row["references"] for row in made.rows] == [["h"]]
    assert (made.rated, made.left_out) == (3, {"rated good by one and bad by another": 2})


def test_what_cannot_be_used_is_counted(path: Path, tmp_path: Path) -> None:
    made = examples(
        path, Said("Once upon", " a time", "good"), Said([SYSTEM], "b", "good"), Said(chat("c"), " ", "good")
    )
    assert made == FeedbackSet((), 3, {"that continue a text, and are in no conversation": 2, "with a blank text": 1})
    bare = feedback(tmp_path / "bare.db", [Said(chat("a"), "b", "good")], store_prompts=False)
    assert examples_of_feedback(bare).left_out == {"whose prompt was not kept (serve.store_prompts was off)": 1}
    assert pairs_of_feedback(bare).left_out == {"whose prompt was not kept (serve.store_prompts was off)": 1}


def test_prompts_that_were_kept_later_are_used(path: Path) -> None:
    feedback(path, [Said(chat("a"), "b", "good", by="bob", answer_id="0")], store_prompts=False)
    feedback(path, [Said(chat("a"), "b", "good", answer_id="1")])
    assert len(examples_of_feedback(path).rows) == 1


def test_conversations_with_one_beginning_are_one_group(path: Path) -> None:
    made = examples(
        path,
        Said(chat("He  go."), "He goes.", "good"),
        Said(chat("he go."), "He goes.", "good"),
        Said(chat("He go.", "He goes.", "And she?"), "She goes, too.", "good"),
        Said(chat("She go."), "She goes.", "good"),
    )
    assert len({row["group"] for row in made.rows}) == 2
    assert len({row["id"] for row in made.rows}) == 4


def test_the_order_of_feedback_changes_nothing(tmp_path: Path) -> None:
    said = [Said(chat(f"question {number % 7}"), f"answer {number}", "good") for number in range(20)]
    said += [Said(chat(f"question {number}"), "no", "correction", f"better {number}") for number in range(5)]
    made = []
    for seed in range(3):
        random.Random(seed).shuffle(said)
        path = feedback(tmp_path / f"{seed}.db", said)
        made.append((examples_of_feedback(path), pairs_of_feedback(path)))
    assert made[0] == made[1] == made[2]


def test_pairs(path: Path) -> None:
    made = pairs(
        path,
        Said(chat("own"), "worse", "correction", "better"),
        Said(chat("bad and corrected"), "worse", "bad", "better"),
        Said(chat("liked"), "good one", "good"),
        Said(chat("liked"), "bad one", "bad"),
        Said(chat("liked"), "another", "good"),
        Said(chat("only bad"), "bad", "bad"),
        Said(chat("only good"), "good", "good"),
        Said(chat("circle"), "x", "correction", "y"),
        Said(chat("circle"), "y", "bad"),
    )
    found = [
        (row["prompt"][-1]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"], row["category"])
        for row in made.rows
    ]
    assert sorted(found) == [
        ("bad and corrected", "better", "worse", "correction"),
        ("circle", "y", "x", "correction"),
        ("liked", "another", "bad one", "bad"),
        ("own", "better", "worse", "correction"),
    ]
    assert (made.rated, sum(made.left_out.values())) == (9, 4)


def many(count: int) -> Iterable[Said]:
    for number in range(count):
        prompt = chat(f"He go to place {number}.")
        yield Said(prompt, f"He goes to place {number}.", "good")
        yield Said(prompt, f"He go to place {number}!", "correction", f"He went to place {number}.")
        answer = {"role": "assistant", "content": f"He goes to place {number}."}
        more = [*prompt, answer, {"role": "user", "content": "And then?"}]
        yield Said(more, f"He comes back from {number}.", "good")


def test_training_reads_the_examples(tmp_path: Path) -> None:
    made = examples_of_feedback(feedback(tmp_path / "feedback.db", many(20)))
    write_jsonl(tmp_path / "train.jsonl", made.rows)
    splits = load_splits(Data(source=str(tmp_path / "train.jsonl")))
    parts = [splits.train, splits.validation, splits.test]
    read = [example for part in parts for example in part]
    # The rated answer of a conversation alone is learned, not those before it.
    assert sorted(example.id for example in read) == [row["id"] for row in made.rows]
    assert {example.category for example in read} == {"good", "correction"}
    by_id = {row["id"]: row for row in made.rows}
    for example in read:
        row = by_id[example.id]
        assert [message.as_dict() for message in example.messages] == row["prompt"]
        assert list(example.references) == row["references"]
    groups = [{example.group for example in part} for part in parts]
    assert groups[0] and groups[2]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    openings = [{example.messages[1].content for example in part} for part in parts]
    assert not openings[0] & openings[2]


def test_training_reads_the_pairs(tmp_path: Path) -> None:
    made = pairs_of_feedback(feedback(tmp_path / "feedback.db", many(20)))
    write_jsonl(tmp_path / "pairs.jsonl", made.rows)
    splits = load_splits(Data(source=str(tmp_path / "pairs.jsonl")))
    read = [example for part in (splits.train, splits.validation, splits.test) for example in part]
    assert len(read) == len(made.rows) == 20
    assert all(len(example.rejected) == 1 and example.rejected[0].endswith("!") for example in read)
    assert {example.references[0].split()[1] for example in read} == {"went"}


def test_a_file_is_read_while_it_is_written(path: Path) -> None:
    feedback(path, [Said(chat("a"), "b", "good")])
    writer = open_feedback(path)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM feedback")
    with reading_feedback(path) as connection:
        assert connection.execute("SELECT count(*) FROM feedback").fetchone() == (1,)
    writer.execute("ROLLBACK")
    writer.close()


@pytest.mark.parametrize(("content", "said"), [(None, "no such file"), (b"not a database" * 9, "cannot be used")])
def test_a_file_of_something_else_is_refused(path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        examples_of_feedback(path)


def test_an_answer_that_was_cut_off_is_no_example_however_good_it_is(tmp_path: Path) -> None:
    cut = Said(chat("one"), "the beginning of", "good", finish_reason="length")
    corrected = Said(chat("two"), "wro", "correction", "right", finish_reason="length")
    read = examples(tmp_path / "f.db", cut, corrected)
    assert [row["completion"][0]["content"] for row in read.rows] == ["right"]
    assert read.left_out == {"rated good, and cut off before they ended": 1}
