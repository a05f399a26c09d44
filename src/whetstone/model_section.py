"""The ``model`` section of an experiment: which weights, or which shape, and how messages become tokens."""

from typing import Literal

from pydantic import model_validator

from whetstone.section import Count, KeyedError, Section

__all__ = ["Model", "Scratch"]


class Scratch(Section):
    """The shape of a Llama-type decoder that starts from random weights, and of its own BPE tokenizer."""

    vocabulary_size: Count = 2048
    dim: Count = 256
    layers: Count = 2
    heads: Count = 4
    feed_forward_dim: Count = 512
    context_tokens: Count = 128

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "Scratch":
        if self.dim % (2 * self.heads):
            raise KeyedError("heads", f"dim {self.dim} must be a multiple of 2 x heads ({self.heads})")
        if self.vocabulary_size < 260:
            raise KeyedError("vocabulary_size", "needs at least 260 (256 bytes and 4 special tokens)")
        return self


class Model(Section):
    """Where the weights come from and how messages become tokens."""

    base: str | None = None
    """A directory, a hub id, or ``builtin:demo-base``."""
    scratch: Scratch | None = None
    """Start from random weights of this shape instead of a base."""
    template: str = "auto"
    """``auto`` (the tokenizer's own), ``plain``, ``chatml``, or a path to a Jinja file."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if (self.base is None) == (self.scratch is None):
            raise KeyedError("base", "give exactly one of 'base' (a model) and 'scratch' (a shape)")
        return self
