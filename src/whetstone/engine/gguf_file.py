"""What is to be known of a GGUF file before it is asked: its template, and how long its context is.

Notable: a GGUF file says how to split text by a name only, and not everybody splits alike by it. A tokenizer beside the
file (``tokenizer.json``) is taken as the model's own. Else the file's is read by transformers, and has to encode a few
difficult texts as llama.cpp does.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from whetstone.data.template import Template
from whetstone.engine.opened_template import saved_tokenizer
from whetstone.errors import UserError
from whetstone.models.gguf import ADAPTER_KEY, BASE_KEY, SHA256_KEY

try:
    import llama_cpp
except (ImportError, OSError, RuntimeError) as error:
    reason = str(error).strip().splitlines()[0]
    raise UserError(f"GGUF models need llama-cpp-python ({reason}): pip install 'whetstone[gguf]'") from None

__all__ = ["GgufFile", "GgufSource", "gguf_source", "read_gguf"]

_LONGEST_CONTEXT_TOKENS = 4096
"""llama.cpp sets the memory of the whole context aside at once."""

_say_nothing = llama_cpp.llama_log_callback(lambda level, text, data: None)
"""llama.cpp writes hundreds of lines to standard error."""

_MEND = "put the model's tokenizer.json and tokenizer_config.json beside it"

_DIFFICULT = (
    "She's there, isn't she?  They'LL see.",
    "In 1987 it cost 12345.678 francs (100%).",
    "def f(x):\n    return x**2  # twice\n\n\n",
    "Zürich, naïve café, Straße, 日本語, привет, مرحبا, 🙂👍🏽",
    "\ta line,\r\nand one that ends in spaces   ",
)
"""Where rules to split text differ: short forms, numbers, white space, other scripts."""


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What a file says of its model.

    Attributes:
        template: What it is asked with.
        context_tokens: How long prompt and answer may be together.
    """

    template: Template
    context_tokens: int


@dataclass(frozen=True, slots=True)
class GgufSource:
    """What a file says that it was made of, by hashes; None for what it does not say.

    Attributes:
        sha256: The weights.
        base_sha256: The base, where an adapter was merged.
        adapter_sha256: The adapter.
    """

    sha256: str | None
    base_sha256: str | None
    adapter_sha256: str | None


def gguf_source(file: Path) -> GgufSource:
    """Reads what a file says of where it came from.

    Raises:
        UserError: llama.cpp cannot read the file.
    """
    with _Vocabulary(file) as vocabulary:
        return GgufSource(*map(vocabulary.metadata, (SHA256_KEY, BASE_KEY, ADAPTER_KEY)))


def read_gguf(file: Path, choice: str) -> GgufFile:
    """Reads what a file says, and none of its weights.

    Args:
        file: The model.
        choice: ``auto`` is the template beside the file, else the file's own; or ``plain``, ``chatml``, a Jinja file.

    Raises:
        UserError: llama.cpp cannot read the file, it has no tokenizer that can be trusted, or no template.
    """
    with _Vocabulary(file) as vocabulary:
        if (file.parent / "tokenizer.json").is_file():
            tokenizer: PreTrainedTokenizerBase = saved_tokenizer(file.parent)
            if len(tokenizer) > len(vocabulary):
                raise UserError(
                    f"{file.parent / 'tokenizer.json'}: is of another model than {file.name}; move one away"
                )
        else:
            tokenizer = _own_tokenizer(file)
            _refuse_other_ids(file, tokenizer, vocabulary)
        architecture = vocabulary.metadata("general.architecture")
        trained = vocabulary.metadata(f"{architecture}.context_length")
    return GgufFile(Template(tokenizer, choice), min(int(trained or _LONGEST_CONTEXT_TOKENS), _LONGEST_CONTEXT_TOKENS))


class _Vocabulary:
    """A file of which llama.cpp read everything but the weights."""

    def __init__(self, file: Path) -> None:
        llama_cpp.llama_log_set(_say_nothing, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
        if not self._model:
            raise UserError(f"{file}: llama.cpp cannot read it; is it a whole GGUF file? make or fetch it again")
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)

    def __enter__(self) -> "_Vocabulary":
        return self

    def __exit__(self, *error: object) -> None:
        llama_cpp.llama_model_free(self._model)

    def __len__(self) -> int:
        return int(llama_cpp.llama_vocab_n_tokens(self._vocabulary))

    def metadata(self, key: str) -> str | None:
        """What the file says under a key."""
        buffer = ctypes.create_string_buffer(256)
        length = llama_cpp.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode() if length >= 0 else None

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, none of them special."""
        encoded = text.encode()
        tokens = (llama_cpp.llama_token * (len(encoded) + 1))()  # a token has at least a byte, or is one space more
        count = llama_cpp.llama_tokenize(self._vocabulary, encoded, len(encoded), tokens, len(tokens), False, False)
        return list(tokens[:count])


def _own_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # whatever a reader of foreign files raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{file}: its tokenizer cannot be read ({reason}); {_MEND}") from None
    return tokenizer


def _refuse_other_ids(file: Path, tokenizer: PreTrainedTokenizerBase, vocabulary: _Vocabulary) -> None:
    for text in _DIFFICULT:
        if tokenizer(text, add_special_tokens=False)["input_ids"] != vocabulary.encode(text):
            raise UserError(f"{file}: its tokenizer cannot be read exactly ({text!r} becomes other tokens); {_MEND}")
