"""Every recipe is trained, on a tiny model of its architecture; docs/tuning.md is held to what it says."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from rich.console import Console
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from whetstone.cli.live import live_training
from whetstone.data.sources import read_parts
from whetstone.data_section import Data, GrammarSource
from whetstone.experiment import Experiment, load_experiment
from whetstone.files import read_jsonl
from whetstone.models.adapter import load_adapter
from whetstone.models.load import locate
from whetstone.recipes import recipe_names, recipe_path
from whetstone.run import Run
from whetstone.train.check import Checked, check
from whetstone.train.settings import settle
from whetstone.train.tune import load_base, tune
from whetstone.tune_section import Tune

TEMPLATES = Path(__file__).parent / "assets" / "chat_templates"
DOCS = Path(__file__).parent.parent / "docs"
TUNING = (DOCS / "tuning.md").read_text(encoding="utf-8")
STEPS = 3


@dataclass(frozen=True)
class Family:
    """A published model, made small.

    Attributes:
        config: Its architecture.
        tokens: Its special tokens: start, end of text, then those of its chat template.
        template: Its chat template under assets/chat_templates; none for a base model.
        ends: What its generation settings end with.
    """

    config: type[PreTrainedConfig]
    tokens: tuple[str, ...]
    template: str | None = None
    ends: tuple[str, ...] = ("<|endoftext|>",)


LLAMA3 = Family(
    LlamaConfig,
    ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    "llama3",
    ("<|end_of_text|>", "<|eot_id|>"),
)
FAMILIES = {
    "microsoft/phi-2": Family(PhiConfig, ("<|endoftext|>", "<|endoftext|>")),
    "EleutherAI/pythia-1.4b": Family(GPTNeoXConfig, ("<|endoftext|>", "<|endoftext|>")),
    "meta-llama/Llama-3.2-3B-Instruct": LLAMA3,
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA3,
    "microsoft/Phi-3-mini-4k-instruct": Family(
        Phi3Config,
        ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "phi3",
        ("<|endoftext|>", "<|end|>"),
    ),
}
BASES = {name: load_experiment(recipe_path(name)).model.base for name in recipe_names()}
PUBLISHED = [name for name, base in BASES.items() if base in FAMILIES]

NOTED = {
    "phi2-qlora-replay": (
        "tune.optimiser paged_adamw_32bit is not applied: there is no other memory to page to from a CPU; adamw is "
        "used, which computes the same.",
    ),
}
"""What a CPU cannot do as a recipe asks; nothing else may be noted."""


def save_tiny(base: str, folder: Path) -> Path:
    """A model of random weights and a byte-level tokenizer, saved as a model from the hub is."""
    family = FAMILIES[base]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = ["Correct the mistakes in this sentence. Answer with the sentence alone.", "Copy: the cat sits ."] * 9
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.tokens])
    start, end, *_ = family.tokens
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=start, eos_token=end, pad_token=end)
    if family.template is not None:
        tokenizer.chat_template = (TEMPLATES / f"{family.template}.jinja").read_text(encoding="utf-8")
    tokenizer.save_pretrained(folder)
    config = family.config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(list(family.ends))
    model.save_pretrained(folder)
    return folder


def small(name: str, folder: Path) -> Experiment:
    """A recipe with a tiny base, few examples and three steps on a CPU; everything else stays as it is."""
    recipe = load_experiment(recipe_path(name))
    base = recipe.model.base
    model = recipe.model.model_copy(
        update={"device": "cpu", "base": str(save_tiny(base, folder / "base")) if base in FAMILIES else base}
    )
    source = recipe.data.source
    assert isinstance(source, GrammarSource)
    few = {"train": 24, "validation": 4, "test": 24}
    data = recipe.data.model_copy(update={"source": source.model_copy(update=few)})
    if data.replay is not None:
        assert isinstance(data.replay.source, GrammarSource)
        replayed = data.replay.source.model_copy(update=few)
        data = data.model_copy(update={"replay": data.replay.model_copy(update={"source": replayed})})
    steps = recipe.tune.model_copy(update={"steps": STEPS})
    return recipe.model_copy(update={"model": model, "data": data, "tune": steps})


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_trains_from_start_to_end(name: str, tmp_path: Path) -> None:
    experiment, said = small(name, tmp_path), list[str]()
    run = Run(tmp_path / "run")
    checked = check(experiment, said.append)
    assert not checked.stopping(experiment)
    with run.lock(), live_training(Console(quiet=True)) as view:
        manifest = tune(run, experiment, checked, view, said.append)
    assert manifest.tuning is not None
    assert manifest.tuning.steps == STEPS
    assert manifest.retention
    assert manifest.notes == NOTED.get(name, ())
    assert read_jsonl(run.metrics_path)[-1]["validation_loss"] > 0
    if experiment.tune.watch.samples_every is not None:
        assert {row["step"] for row in read_jsonl(run.watch_path)} == {STEPS}
    if experiment.tune.adapts:
        _trained_what_it_names(run, experiment)
        _answers_otherwise_than_its_base(run, experiment, checked)


def _trained_what_it_names(run: Run, experiment: Experiment) -> None:
    """LoRA's B begins at zero; where it is not, it was trained."""
    tensors = load_file(run.weights("adapter") / "adapter_model.safetensors")
    assert all(".lora_" in key for key in tensors), "PEFT saved more than the adapter"
    trained = {key.split(".")[-3] for key, tensor in tensors.items() if ".lora_B." in key and tensor.any()}
    targets = experiment.tune.targets
    if targets == "all-linear":
        assert experiment.model.base is not None
        targets = linear_names(AutoModelForCausalLM.from_pretrained(locate(experiment.model.base)))
    assert trained == set(targets)


def _answers_otherwise_than_its_base(run: Run, experiment: Experiment, checked: Checked) -> None:
    base = load_base(run, experiment, checked.splits)
    tuned = load_adapter(base.model, run.weights("adapter"))
    ids = torch.tensor([base.template.prompt_ids(checked.splits.test[0].messages)])
    with torch.no_grad():
        after = tuned(input_ids=ids).logits
        with tuned.disable_adapter():
            before = tuned(input_ids=ids).logits
    assert not torch.equal(before, after)


def linear_names(model: PreTrainedModel) -> tuple[str, ...]:
    """What the linear layers are called, but for the output head."""
    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    return tuple(sorted({name.rpartition(".")[2] for name in linear}))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_targets_are_the_linear_layers_of_the_architecture_at_its_real_size(name: str) -> None:
    targets = load_experiment(recipe_path(name)).tune.targets
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(FAMILIES[str(BASES[name])].config())
    assert targets == "all-linear" or tuple(sorted(targets)) == linear_names(model)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_asks_for_nothing_that_the_device_it_is_for_has_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    device = torch.device("mps" if name.endswith("-mps") else "cuda")
    settings = settle(load_experiment(recipe_path(name)), device, FAMILIES[str(BASES[name])].config())
    assert settings.notes == ()
    assert settings.precision == ("float32" if device.type == "mps" else "bfloat16")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_loads_with_the_files_that_its_comments_propose(name: str, tmp_path: Path) -> None:
    text = re.sub(r"^.*# a stand-in.*\n", "", recipe_path(name).read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = re.sub(r"^( +)# (source:|  train: {|  test: {)", r"\1\2", text, flags=re.MULTILINE)
    for file in re.findall(r"[\w/]+\.(?:jsonl|src|ref\d)", text):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("x\n", encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    assert str(tmp_path) in str(load_experiment(path).data.source)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TUNING, re.DOTALL)


@pytest.mark.parametrize("snippet", blocks("yaml"))
def test_the_experiments_of_the_page_load(snippet: str, tmp_path: Path) -> None:
    for name in re.findall(r"\w+\.jsonl", snippet):
        (tmp_path / name).write_text("{}\n")
    data = "" if "data:" in snippet else "data: {source: {grammar: corrections}}\n"
    path = tmp_path / "mine.yaml"
    path.write_text(f"model: {{base: builtin:demo-base}}\n{data}{snippet}")
    assert load_experiment(path).name == "mine"


@pytest.mark.parametrize("rows", blocks("json"))
def test_the_rows_of_the_page_are_read(rows: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(rows)
    (loaded,) = read_parts(Data(source=str(path)), str(path)).values()
    assert len(loaded.examples) == rows.count("\n")
    assert all(example.rejected or example.tests for example in loaded.examples)


def test_the_table_of_keys_has_every_key_and_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (\S+) \| \S.* \|$", TUNING.partition("## All keys")[2], re.MULTILINE)
    assert dict(rows) == dict(defaults(Tune()))


def defaults(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The keys of a section, those of the sections in it with theirs, as the table writes their defaults."""
    for key in type(section).model_fields:
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            yield from defaults(value, f"{prefix}{key}.")
        elif isinstance(value, tuple):
            yield prefix + key, f"[{', '.join(value)}]"
        else:
            names = {None: "none", 1e4: "1e4", 2e-4: "2e-4"}
            yield prefix + key, names.get(value, str(value).lower())


def test_the_table_of_recipes_has_them_all() -> None:
    table = TUNING.partition("## Recipes")[2].partition("## ")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)]
    assert sorted(named) == recipe_names()


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", TUNING))
def test_the_links_of_the_page_lead_somewhere(target: str) -> None:
    assert (DOCS / target).exists()
