"""Prompts as token ids, and whether a program that renders them itself would come to the same."""

from whetstone.data.example import Message
from whetstone.data.template import Template
from whetstone.errors import UserError
from whetstone.serve.delegate.order import PromptOfWire, Render, Rendered
from whetstone.serve.worker.prompts import Prompts

__all__ = ["Rendering"]

_TOO_LONG = "context_length_exceeded"


class Rendering:
    """Renders the prompts of one template."""

    def __init__(self, template: Template, context_tokens: int, *, same_tokens: bool) -> None:
        """Looks at the tokenizer.

        Args:
            template: What the models are asked with.
            context_tokens: The longest prompt and answer together.
            same_tokens: Refuse what a program would render otherwise that is given the text.
        """
        self._prompts = Prompts(template, context_tokens)
        self._tokenizer = template.tokenizer
        self._context_tokens = context_tokens
        self._same_tokens = same_tokens

    def rendered(self, asked: Render) -> Rendered:
        """The token ids of a prompt, or why there are none."""
        prompt = asked.prompt
        param = "messages" if prompt and isinstance(prompt[0], Message) else "prompt"
        try:
            self._prompts.check_length(prompt)
        except UserError as error:
            return Rendered(asked.id, error=str(error), param=param, code=_TOO_LONG)
        try:
            token_ids = self._prompts.ids(prompt)
        except UserError as error:
            return Rendered(asked.id, error=str(error), param=param)
        if len(token_ids) >= self._context_tokens:
            said = f"the prompt of {len(token_ids):,} tokens fills the model's context of {self._context_tokens:,}"
            return Rendered(asked.id, error=f"{said}; shorten it", param=param, code=_TOO_LONG)
        if self._same_tokens and self._by_program(prompt) != token_ids:
            said = (
                "this prompt cannot be put to the program that computes: it would read special tokens out of its text"
            )
            return Rendered(asked.id, error=f"{said}; reword it", param=param)
        return Rendered(asked.id, token_ids)

    def _by_program(self, prompt: PromptOfWire) -> tuple[int, ...]:
        """The token ids that a program comes to which is given the text."""
        if isinstance(prompt, str):
            return tuple(self._tokenizer(prompt)["input_ids"])
        turns = [turn.as_dict() for turn in prompt if isinstance(turn, Message)]
        return tuple(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))
