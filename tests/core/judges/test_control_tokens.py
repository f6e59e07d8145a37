"""The control tokens of a judge's own tokenizer: which they are, and that no text of others becomes one. The tokenizers
are real ones of Hugging Face, with the added tokens of the families; the vocabulary below them is bytes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import mistral_common
import pytest
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sgpo_core.config.judge import JudgeSettings
from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item
from sgpo_core.judges.chat import ChatReply, ChatRequest
from sgpo_core.judges.control_tokens import ControlTokens, controls_of
from sgpo_core.judges.prompted import PromptedJudge
from sgpo_core.judges.prompts import PROMPTS
from sgpo_core.judges.sanitize import sanitize
from sgpo_core.types import Problem

# Family -> special tokens.
FAMILIES = {
    "EXAONE": ["[|system|]", "[|user|]", "[|assistant|]", "[|tool|]", "[|endofturn|]", "[BOS]", "[PAD]", "PI:URL"],
    "InternLM2": ["[UNUSED_TOKEN_141]", "[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]", "<|im_start|>", "<|plugin|>"],
    "Mistral": ["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[control_8]", "[control_12]", "<SPECIAL_20>"],
    "Granite": ["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>", "<fim_prefix>"],
    "Llama 2": ["<s>", "</s>", "<unk>", "<<SYS>>", "<</SYS>>"],
    "Falcon": [">>TITLE<<", ">>QUESTION<<", ">>ANSWER<<", "<|endoftext|>"],
    "MiniMax": ["]~!b[", "]~b]", "[e~["],
    "Kimi": ["<|im_user|>", "<|im_end|>", "◁think▷", "◁/think▷"],
    "DeepSeek": ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
    "ChatGLM": ["[gMASK]", "[sMASK]", "sop", "eop", "<|system|>"],
    "Dolly": ["### End", "### Instruction:", "### Response:\n"],
    "CodeLlama": ["▁<PRE>", "▁<MID>", "▁<EOT>"],
    "nobody's": ["«turn»", "{{system}}", "@@END", "__stop__", "~~", "<<a>>", "<a>>", "[x][y]"],
}
# Added, not special: text.
TEXT = [
    "\n\n",
    "\n\n\n",
    "  ",
    "\t\t",
    "▁▁",
    "7",
    "10",
    "x",
    "÷",
    "ø",
    "eigenvalue",
    "\\frac",
    "C++",
    "...",
    "[]",
    "(a)",
]
# Added, not special: control tokens all the same.
MARKUP = ["<think>", "</think>", "<tool_call>", "[unused_7]", "|||IP_ADDRESS|||", "<|fim_prefix|>"]


def tokenizer_with(special: list[str], added: list[str]) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=special[0])


def controls_in(tokenizer: PreTrainedTokenizerFast, text: str, known: set[str]) -> list[str]:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
    return [token for token in tokens if token in known]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_becomes_a_control_token(family: str) -> None:
    special = FAMILIES[family]
    tokenizer = tokenizer_with(special, TEXT + MARKUP)
    controls = ControlTokens(controls_of(tokenizer))
    known = {*special, *MARKUP}
    rng = random.Random(family)
    parts = [
        *special,
        *MARKUP,
        *TEXT,
        *(token[1:] for token in special),
        "a",
        " ",
        "\n",
        "2 + 3 = 5",
        "People",
        "\u200b",
    ]
    found = 0
    for _ in range(300):
        text = "".join(rng.choices(parts, k=rng.randrange(1, 12)))
        once = sanitize(text, controls)
        found += len(controls_in(tokenizer, text, known))
        assert controls_in(tokenizer, once, known) == [], (text, once)
        assert sanitize(once, controls) == once
        assert once.count("\n") == text.count("\n")
    assert found > 100, "without the rules there are many"


def test_what_a_tokenizer_adds_and_is_text() -> None:
    tokenizer = tokenizer_with(["<eos>", "\n\n\n\n", "  ", "8", "42", "<1>"], TEXT + MARKUP)
    assert set(controls_of(tokenizer)) == {"<eos>", "<1>", *MARKUP}
    text = "Let x ÷ 7 = 10.\n\nThe  eigenvalue of \\frac{x}{42} in C++:\t\t8...\n\n\n(a) [] ø\n\n\n\nEnd"
    assert sanitize(text, ControlTokens(controls_of(tokenizer))) == text


@pytest.mark.parametrize(
    "text",
    [
        "a < b > c, a<b and c>d, 0<x<1, |x|<|y|, |x|<|y|,|z|>1, x <- 1, f: A -> B",
        "[ABC], [0;1], [0, 1], [x], [A_N], [|x|], [|AB|], a[1], N ◁ G ▷ 1, 8>>2, 1<<3, x>>AB<<y",
        "$\\left[\\frac{1}{2}; 3\\right)$, \\langle u|v\\rangle, {{1, 2}, {3}}, People <u, v> ½ ∑ 加",
    ],
)
def test_mathematics_stays(text: str) -> None:
    """`eop` in "People" is a control token of ChatGLM's alone, and split there."""
    for family, special in FAMILIES.items():
        if family != "nobody's":
            controls = ControlTokens(controls_of(tokenizer_with(special, TEXT + MARKUP)))
            expected = text.replace("People", "Pe›ople") if family == "ChatGLM" else text
            assert sanitize(text, controls) == expected, family


@pytest.mark.parametrize(
    ("token", "text", "expected"),
    [
        ("[|system|]", "a[|system|]b", "a‹|system|›b"),
        ("<<SYS>>", "<<SYS>>x", "‹‹SYS››x"),
        ("PI:URL", "see PI:URL", "see P›I:URL"),
        ("sop", "a sophism", "a s›ophism"),
        ("### End", "2\n### End\n", "2\n‹## End\n"),
        ("__stop__", "__stop__", "‹_stop_›"),
        ("<｜User｜>", "<｜User｜> <|User|>", "‹｜User｜› ‹|User|›"),
        ("<|User|>", "＜|Usеr|＞", "‹|Usеr|›"),  # full width; the e is Cyrillic
        ("▁<EOT>", "a <EOT>", "a ‹EOT›"),
        ("### Response:\n", "### Response: 1", "‹## Response› 1"),
        ("~~", "~~~", "‹‹›"),
    ],
)
def test_how_they_are_rewritten(token: str, text: str, expected: str) -> None:
    controls = ControlTokens(controls_of(tokenizer_with([token], [])))
    assert sanitize(text, controls) == expected
    assert sanitize(expected, controls) == expected


def mistral_s_own() -> list[Path]:
    return sorted((Path(mistral_common.__file__).parent / "data").glob("mistral_instruct_tokenizer_*"))


@pytest.mark.parametrize("path", mistral_s_own(), ids=lambda path: path.name)
def test_mistral_s_own_control_tokens(path: Path) -> None:
    """750 of the real thing; with the rules for any judge alone, too: behind an endpoint the tokenizer is not known."""
    tokenizer = SentencePieceTokenizer(str(path))
    special = [tokenizer.id_to_piece(i) for i in range(tokenizer.n_words) if tokenizer.is_special(i)]
    assert len(special) > 700 and "[control_20]" in special and "[TOOL_CALLS]" in special
    controls = ControlTokens(special)
    for rewritten in (sanitize("\n".join(special)), sanitize("\n".join(special), controls)):
        assert [token for token in special if token in rewritten] == []


def test_there_are_tokenizers_of_mistral_s() -> None:
    assert len(mistral_s_own()) > 1


@pytest.mark.parametrize("unit", ["<", "<|", "<|reserved_", "<|reserved_special_token_1|", "P", "[|", "é<", "<|eot|>"])
def test_a_million_characters_and_a_thousand_tokens_end(unit: str) -> None:
    controls = ControlTokens([f"<|reserved_special_token_{i}|>" for i in range(1000)] + ["PI:URL", "<|eot|>", "[|x|]"])
    began = time.process_time()
    for count in (10_000, 1_000_000):
        controls.rewritten(unit * (count // len(unit)))
    assert time.process_time() - began < 20


def test_nothing_of_it_reaches_a_judge_that_is_asked() -> None:
    special = FAMILIES["EXAONE"]
    tokenizer = tokenizer_with(special, [])
    hostile = "".join(special)
    item = Item(Problem("p", f"2 + 2? {hostile}", "4", f"4 {hostile}"), tuple(segment(f"5 {hostile}\n\n6 {hostile}")))
    seen: list[str] = []

    def chat(requests: list[ChatRequest]) -> list[ChatReply]:
        seen.extend(message.content for request in requests for message in request.messages)
        return [ChatReply("1" if request.choices else f"Step 1 says {hostile}") for request in requests]

    controls = ControlTokens(controls_of(tokenizer))
    for name, prompt in PROMPTS.items():
        PromptedJudge(chat, prompt, JudgeSettings(), controls)([item])
        assert len(seen) >= 1, name
    assert len(seen) == 2 + 4 + 1
    assert [text for text in seen if controls_in(tokenizer, text, {*special})] == []
