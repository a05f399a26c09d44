"""One function turns messages into token ids, for training, evaluation and serving alike.

The prompt and the answer are encoded apart and joined, so the ids that a model was trained to answer are exactly the
ids it is asked with later. The end-of-turn token is the last token of every trained answer and the token that stops
generation. The template travels with the tokenizer (``tokenizer.chat_template``) and is saved beside the weights.
"""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from whetstone.data.example import Message
from whetstone.errors import UserError
from whetstone.section import stable_hash

__all__ = ["CHATML", "PLAIN", "Template", "prompt_hash"]

PLAIN = (
    "{{ bos_token or '' }}{% for m in messages %}{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
)
"""For base models without a template: the turns on lines of their own, the answer closed by the EOS token."""

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_PROBE = "probe answer"


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
        if choice == "plain":
            tokenizer.chat_template = PLAIN
        elif choice == "chatml":
            # A token that the model has never seen would have to be learned, and an adapter leaves embeddings alone.
            if "<|im_end|>" not in tokenizer.all_special_tokens:
                raise UserError(
                    f"{tokenizer.name_or_path}: has no special token <|im_end|>; set model.template to plain, "
                    "which ends an answer with the tokenizer's own EOS"
                )
            tokenizer.chat_template = CHATML
        elif choice != "auto":
            tokenizer.chat_template = Path(choice).read_text(encoding="utf-8")
        if tokenizer.chat_template is None:
            raise UserError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template; "
                "set model.template to plain, chatml or a Jinja file"
            )
        self.end_of_turn_id = self._find_end_of_turn()

    @property
    def hash(self) -> str:
        """Identity of the template's text."""
        return stable_hash(self.tokenizer.chat_template)

    def vocabulary(self) -> dict[str, int]:
        """Every token and its id, special tokens included."""
        vocabulary: dict[str, int] = self.tokenizer.get_vocab()
        return vocabulary

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt, up to the place where the answer begins."""
        return self._encode(self._render(messages, answering=True))

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer, the end-of-turn token last."""
        return [*self._encode(answer), self.end_of_turn_id]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens and the white space at its ends."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _render(self, messages: Sequence[Message], *, answering: bool) -> str:
        turns = [message.as_dict() for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answering)
        except (TemplateError, TypeError) as error:
            raise UserError(f"the chat template cannot render {[m.role for m in messages]}: {error}") from None
        return str(text)

    def _find_end_of_turn(self) -> int:
        """The first special token that the template puts after an answer; the EOS token where it puts none."""
        question = (Message("user", "probe"),)
        prompt = self._render(question, answering=True)
        whole = self._render((*question, Message("assistant", _PROBE)), answering=False)
        if not whole.startswith(prompt + _PROBE):
            raise UserError(
                f"{self.tokenizer.name_or_path}: the chat template renders an answer differently from the place it "
                "leaves for one, so training and serving would differ; set model.template"
            )
        special = set(self.tokenizer.all_special_ids)
        for token_id in self._encode(whole[len(prompt + _PROBE) :]):
            if token_id in special:
                return token_id
        if self.tokenizer.eos_token_id is None:
            raise UserError(f"{self.tokenizer.name_or_path}: neither the template nor the tokenizer ends an answer")
        return int(self.tokenizer.eos_token_id)


def prompt_hash(token_ids: Sequence[int]) -> str:
    """Identity of a prompt as the model sees it."""
    return stable_hash(list(token_ids))
