"""A small tokenizer for each published chat template, of the kind that the template was published with.

The vocabularies are trained on a few sentences; special tokens, normalizers, pre-tokenizers, decoders and
post-processors are those of the family, and every tokenizer has been saved and loaded again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from whetstone.data.template import PLAIN
from whetstone.train.recorder import Observer
from whetstone.train.session import Session
from whetstone.train.settings import Settings

TEMPLATES = Path(__file__).parent.parent / "assets" / "chat_templates"

TEXTS = [
    "The cat sits on the mat. She walks to school every day.",
    "Correct this sentence: He go to the market, and she don't.",
    "user assistant system model Instruction Response [INST] [/INST] <<SYS>>",
    "Zażółć gęślą jaźń. Ünïcode, naïve café, 東京, emoji.",
] * 3


@dataclass(frozen=True)
class Family:
    """A published chat template with the tokenizer that it belongs to.

    Attributes:
        template: The file under assets/chat_templates, or ``plain``.
        base: Makes the tokenizer before it knows its special tokens by name.
        end: The token that closes a turn.
        bos: The start token, where there is one.
        eos: The tokenizer's EOS, which need not close a turn.
        pad: The pad token.
        others: More special tokens; they are marked in tokenizer.json and named nowhere.
        takes_system: Whether the template renders a system turn.
        has_start: Whether the tokenizer has a token that a prompt could start with twice.
    """

    template: str
    base: Callable[[], Tokenizer]
    end: str
    bos: str | None
    eos: str
    pad: str
    others: tuple[str, ...] = ()
    takes_system: bool = True
    has_start: bool = True


def byte_level() -> Tokenizer:
    """GPT-2, Qwen2, Llama 3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def byte_level_nfc() -> Tokenizer:
    """Qwen2 composes characters."""
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def sentencepiece() -> Tokenizer:
    """BPE with byte fallback over texts whose spaces are ``▁``; Gemma as it stands."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    trained.train_from_iterator(TEXTS, trainer)
    model = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _without_first_space(tokenizer: Tokenizer) -> Tokenizer:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def llama() -> Tokenizer:
    """Llama 2: a space is put before the text and after every special token."""
    tokenizer = _without_first_space(sentencepiece())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def mistral() -> Tokenizer:
    """Mistral v0.3: a space is put before the text only."""
    tokenizer = _without_first_space(sentencepiece())
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


IM = ("<|im_start|>", "<|im_end|>")
PHI = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>")

FAMILIES = {
    "qwen2": Family("qwen2", byte_level_nfc, IM[1], None, IM[1], "<|endoftext|>", IM),
    "smollm2": Family("smollm2", byte_level, IM[1], IM[0], IM[1], IM[1], IM),
    "llama3": Family("llama3", byte_level, "<|eot_id|>", "<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", HEADERS),
    "phi3": Family("phi3", llama, "<|end|>", "<s>", "<|endoftext|>", "<|endoftext|>", PHI),
    "gemma": Family(
        "gemma",
        sentencepiece,
        "<end_of_turn>",
        "<bos>",
        "<eos>",
        "<pad>",
        ("<start_of_turn>", "<end_of_turn>"),
        takes_system=False,
    ),
    "mistral-v0.3": Family("mistral-v0.3", mistral, "</s>", "<s>", "</s>", "<unk>", ("[INST]", "[/INST]")),
    "llama2": Family("llama2", llama, "</s>", "<s>", "</s>", "<unk>"),
    "zephyr": Family("zephyr", llama, "</s>", "<s>", "</s>", "</s>"),
    "tinyllama": Family("tinyllama", llama, "</s>", "<s>", "</s>", "</s>"),
    "alpaca": Family("alpaca", llama, "</s>", "<s>", "</s>", "<unk>"),
    "plain": Family("plain", byte_level, "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
    "plain-without-bos": Family("plain", byte_level, "</s>", None, "</s>", "<pad>", has_start=False),
}


@cache
def _saved(name: str, folder: Path) -> Path:
    family = FAMILIES[name]
    backend = family.base()
    if backend.token_to_id("<s>") is not None:
        backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    # Phi-3 swallows the line feed after its special tokens.
    others = [AddedToken(token, special=True, rstrip=name == "phi3", normalized=False) for token in family.others]
    named = [token for token in (family.bos, family.eos, family.end, family.pad) if token not in (None, *family.others)]
    backend.add_special_tokens([*others, *(AddedToken(token, special=True, normalized=False) for token in named)])
    if family.bos is not None and name not in ("smollm2", "plain"):
        backend.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, backend.token_to_id(family.bos))]
        )
    unknown = "<unk>" if backend.token_to_id("<unk>") is not None else None
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=family.bos, eos_token=family.eos, pad_token=family.pad, unk_token=unknown
    )
    text = PLAIN if family.template == "plain" else (TEMPLATES / f"{family.template}.jinja").read_text("utf-8")
    tokenizer.chat_template = text
    tokenizer.save_pretrained(folder / name)
    return folder / name


@pytest.fixture(scope="session")
def families() -> dict[str, Family]:
    return FAMILIES


@pytest.fixture(scope="session")
def load_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], PreTrainedTokenizerBase]:
    """Loads the tokenizer of a family, a new object each time."""
    folder = tmp_path_factory.mktemp("tokenizers")

    def load(name: str) -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(_saved(name, folder))

    return load


class MakeSession(Protocol):
    def __call__(
        self, folder: Path, observer: Observer = ..., *, keeps_checkpoints: bool = False, resume: bool = False
    ) -> Session: ...


@pytest.fixture
def make_session() -> MakeSession:
    """Sessions on the CPU in float32, which keep no checkpoints unless told."""

    def make(
        folder: Path,
        observer: Observer = lambda metrics: None,
        *,
        keeps_checkpoints: bool = False,
        resume: bool = False,
    ) -> Session:
        settings = Settings(
            precision="float32",
            weights_dtype=torch.float32,
            attention="sdpa",
            optimiser="adamw_torch_fused",
            compile=False,
            activation_checkpointing=False,
            quantised=False,
            double_quantisation=False,
            notes=(),
        )
        return Session(folder, settings, observer, print, keeps_checkpoints=keeps_checkpoints, resume=resume)

    return make
