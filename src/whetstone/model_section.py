"""The ``model`` section of an experiment: which weights, or which architecture, and how messages become tokens."""

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from whetstone.section import Count, KeyedError, Section

__all__ = ["Model", "Scratch"]


_SHAPE = ("dim", "layers", "heads", "feed_forward_dim")
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "context_length")
"""What transformers calls the longest sequence."""


class Scratch(Section):
    """A decoder that starts from random weights, and its own BPE tokenizer.

    It is of the Llama type and has the shape that is given here, or is any other that transformers knows by ``config``.
    """

    vocabulary_size: Count = 2048
    dim: Count = 256
    layers: Count = 2
    heads: Count = 4
    feed_forward_dim: Count = 512
    context_tokens: Count = 128
    """The longest sequence; where ``config`` states it, that holds."""
    config: dict[str, Any] | None = None
    """A transformers configuration, ``model_type`` and all that differs from its defaults, instead of the shape."""

    @model_validator(mode="before")
    @classmethod
    def _length_of_config(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("config"), dict):
            lengths = [values["config"][name] for name in _LENGTHS if isinstance(values["config"].get(name), int)]
            if lengths and "context_tokens" not in values:
                return values | {"context_tokens": lengths[0]}
        return values

    @model_validator(mode="after")
    def _config_stands_alone(self) -> "Scratch":
        if self.config is None:
            return self
        given = [key for key in _SHAPE if key in self.model_fields_set]
        if given:
            raise KeyedError(given[0], "'config' gives the whole shape; say it there, and leave this key out")
        if not isinstance(self.config.get("model_type"), str):
            raise KeyedError("config", "needs a model_type, the name of an architecture of transformers: gpt_neox, say")
        for name in _LENGTHS:
            if self.config.get(name, self.context_tokens) != self.context_tokens:
                raise KeyedError("context_tokens", f"config.{name} says {self.config[name]}; give one of the two")
        return self

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "Scratch":
        if self.config is None and self.dim % (2 * self.heads):
            raise KeyedError("heads", f"dim {self.dim} must be a multiple of 2 x heads ({self.heads})")
        if self.vocabulary_size < 260:
            raise KeyedError("vocabulary_size", "needs at least 260 (256 bytes and 4 special tokens)")
        return self

    @model_serializer(mode="wrap")
    def _what_was_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out the shape that a config replaces, so that what is recorded can be read back."""
        unused = ("config",) if self.config is None else _SHAPE
        return {key: value for key, value in handler(self).items() if key not in unused}


class Model(Section):
    """Where the weights come from and how messages become tokens."""

    base: str | None = None
    """A directory, a hub id, or ``builtin:demo-base``."""
    scratch: Scratch | None = None
    """Start from random weights instead of a base."""
    template: str = "auto"
    """``auto`` (the tokenizer's own), ``plain``, ``chatml``, or a path to a Jinja file."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if (self.base is None) == (self.scratch is None):
            raise KeyedError("base", "give exactly one of 'base' (a model) and 'scratch' (a shape)")
        return self
