"""One function turns messages into token ids, for training, evaluation and serving alike.

The prompt is encoded apart, so the ids that a model was trained to answer are exactly the ids it is asked with later;
the answer is encoded where it stands, after the words that open its turn. The end-of-turn token is the last token of
every trained answer and the token that stops generation. Text never becomes a special token: a turn that quotes
``<|im_end|>`` does not end there. The template travels with the tokenizer (``tokenizer.chat_template``) and is saved
beside the weights.
"""

import contextlib
import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from whetstone.data.example import Message
from whetstone.data.finding import excerpt
from whetstone.errors import UserError
from whetstone.section import stable_hash

__all__ = ["CHATML", "PLAIN", "Template", "prompt_hash", "special_pattern", "special_tokens"]

PLAIN = (
    "{{ bos_token or '' }}{% for m in messages %}{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
)
"""For base models without a template: the turns on lines of their own, the answer closed by the EOS token."""

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_QUESTION = "probe"
_ANSWER = "probe answer"

_CHUNK = 1000
"""Texts that are encoded in one call; what the tokenizer returns for one of them takes a hundred bytes a token."""


class Template:
    """Renders messages with one tokenizer and one chat template.

    Attributes:
        tokenizer: The tokenizer; its ``chat_template`` is the template in force.
        end_of_turn_id: The token that closes an answer: learned, and stopping generation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, choice: str = "auto") -> None:
        """Chooses the template.

        Args:
            tokenizer: Any fast tokenizer.
            choice: ``auto`` (the tokenizer's own), ``plain``, ``chatml``, or the path of a Jinja file.

        Raises:
            UserError: There is no template, it cannot be rendered, or no token ends an answer.
        """
        self.tokenizer = tokenizer
        special = special_tokens(tokenizer)
        self._special = special_pattern(special)
        _choose_template(tokenizer, choice, special)
        self._opening, self._lead, closing = self._probe()
        self._opening_ids = self._encode([self._opening])[0]
        end = self._special.search(closing)
        # Some templates put white space round an answer ("[/INST] answer </s>"): asked, the model has to say it.
        self._trail = closing[: end.start()] if end and not closing[: end.start()].strip() else ""
        if end is None and tokenizer.eos_token_id is None:
            raise UserError(f"{tokenizer.name_or_path}: neither the template nor the tokenizer ends an answer")
        self.end_of_turn_id: int = special[end.group()] if end else tokenizer.eos_token_id

    @property
    def hash(self) -> str:
        """Identity of the template's text."""
        return stable_hash(self.tokenizer.chat_template)

    def stop_ids(self, end_ids: Iterable[int]) -> frozenset[int]:
        """What ends generation: the end of a turn, and the tokens that the model's own settings end with."""
        return frozenset((self.end_of_turn_id, *end_ids))

    def vocabulary(self) -> dict[str, int]:
        """Every token and its id, special tokens included."""
        vocabulary: dict[str, int] = self.tokenizer.get_vocab()
        return vocabulary

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt, up to the place where the answer begins.

        Without messages (plain text) it is the one token that the text's first token is predicted from: the BOS token,
        or the EOS token that stands before it where documents follow each other.
        """
        return self.prompt_ids_many([messages])[0]

    def prompt_ids_many(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """What :meth:`prompt_ids` gives for each conversation, in batches on the tokenizer's own threads.

        Raises:
            UserError: The template does not take the roles of a conversation, or their order.
        """
        usual = [
            index
            for index, messages in enumerate(conversations)
            if messages and not any(self._special.search(message.content) for message in messages)
        ]
        encoded = dict(zip(usual, self._encode(self._render([conversations[index] for index in usual])), strict=True))
        return [
            encoded[index] if index in encoded else self._unusual_prompt_ids(messages)
            for index, messages in enumerate(conversations)
        ]

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer, the end-of-turn token last."""
        return self.answer_ids_many([answer])[0]

    def answer_ids_many(self, answers: Sequence[str]) -> list[list[int]]:
        """What :meth:`answer_ids` gives for each answer, in batches on the tokenizer's own threads."""
        placed = self._encode([f"{self._opening}{self._lead}{answer}{self._trail}" for answer in answers])
        return [
            [*self._after_opening(answer, ids), self.end_of_turn_id]
            for answer, ids in zip(answers, placed, strict=True)
        ]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens and the white space at its ends."""
        # The clean-up would take away spaces that the answer has: "here ." becomes "here.".
        text = self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()

    def _unusual_prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Plain text, which has no prompt, and turns that quote a special token, which has to stay text."""
        if not messages:
            start = self.tokenizer.bos_token_id
            if start is None:
                start = self.tokenizer.eos_token_id
            return [self.end_of_turn_id if start is None else int(start)]
        self._render([messages])  # says plainly what the template does not take
        turns = [message.as_dict() for message in messages]
        try:
            ids: list[int] = self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
            )
        except ValueError as error:
            raise UserError(
                f"'{excerpt(messages[-1].content)}': the conversation quotes a special token that the tokenizer cannot "
                f"write as text ({error}); remove it from the example"
            ) from None
        return ids

    def _after_opening(self, answer: str, placed_ids: list[int]) -> list[int]:
        """The ids of an answer out of those of opening and answer; apart where no border of tokens lies between."""
        if self._special.search(answer):
            return self._encode([f"{self._lead}{answer}{self._trail}"], split_special_tokens=True)[0]
        opening = len(self._opening_ids)
        if placed_ids[:opening] == self._opening_ids:
            return placed_ids[opening:]
        return self._encode([f"{self._lead}{answer}{self._trail}"])[0]

    def _encode(self, texts: Sequence[str], *, split_special_tokens: bool = False) -> list[list[int]]:
        ids: list[list[int]] = []
        for start in range(0, len(texts), _CHUNK):
            encoded = self.tokenizer(
                list(texts[start : start + _CHUNK]),
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                split_special_tokens=split_special_tokens,
            )
            ids += encoded["input_ids"]
        return ids

    def _render(self, conversations: Sequence[Sequence[Message]], *, answering: bool = True) -> list[str]:
        if not conversations:
            return []
        turns = [[message.as_dict() for message in messages] for messages in conversations]
        try:
            texts: list[str] = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=answering
            )
        except (TemplateError, TypeError, ValueError) as error:
            if len(conversations) == 1:
                raise self._refusal(conversations[0], error) from None
            return [text for messages in conversations for text in self._render([messages], answering=answering)]
        return texts

    def _refusal(self, messages: Sequence[Message], error: Exception) -> UserError:
        roles = [message.role for message in messages]
        name = self.tokenizer.name_or_path
        if "system" in roles:
            with contextlib.suppress(UserError):
                self._render([[message for message in messages if message.role != "system"]])
                return UserError(
                    f"{name}: the chat template takes no system turn ({error}); leave out data.system and the system "
                    "turns of the examples, or put their text into data.prompt"
                )
        return UserError(
            f"{name}: the chat template cannot render {roles} ('{excerpt(messages[-1].content)}'): {error}; "
            "mend the roles of the example, or set model.template"
        )

    def _probe(self) -> tuple[str, str, str]:
        """What stands between a question and the answer's place, before the answer in it, and after the answer."""
        question = (Message("user", _QUESTION),)
        prompt = self._render([question])[0]
        whole = self._render([(*question, Message("assistant", _ANSWER))], answering=False)[0]
        lead, answer, closing = whole.removeprefix(prompt).partition(_ANSWER)
        if not whole.startswith(prompt) or not answer or lead.strip():
            raise UserError(
                f"{self.tokenizer.name_or_path}: the chat template renders an answer differently from the place it "
                "leaves for one, so training and serving would differ; set model.template"
            )
        return prompt.rpartition(_QUESTION)[2], lead, closing


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The tokens that mean something other than their text, and their ids.

    Those that the tokenizer names (BOS, EOS, padding) and those that are only marked as special among the added ones,
    as the ends of turns of Llama 3 and Phi-3 are.
    """
    marked = {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {**dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)), **marked}


def special_pattern(special: Iterable[str]) -> re.Pattern[str]:
    """Finds special tokens in text, the longest first where one begins another."""
    longest_first = sorted(special, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _choose_template(tokenizer: PreTrainedTokenizerBase, choice: str, special: Container[str]) -> None:
    if choice == "plain":
        tokenizer.chat_template = PLAIN
    elif choice == "chatml":
        # A token that the model has never seen would have to be learned, and an adapter leaves embeddings alone.
        if "<|im_end|>" not in special:
            raise UserError(
                f"{tokenizer.name_or_path}: has no special token <|im_end|>; set model.template to plain, "
                "which ends an answer with the tokenizer's own EOS"
            )
        tokenizer.chat_template = CHATML
    elif choice != "auto":
        try:
            tokenizer.chat_template = Path(choice).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"model.template: '{choice}' cannot be read ({error}); give auto, plain, chatml or a Jinja file"
            ) from None
    if tokenizer.chat_template is None:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template; "
            "set model.template to plain, chatml or a Jinja file"
        )


def prompt_hash(token_ids: Sequence[int]) -> str:
    """Identity of a prompt as the model sees it."""
    return stable_hash(list(token_ids))
