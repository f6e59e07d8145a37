"""Text of others in a judge's prompt, whatever it is: no control token, no tag, no line that could be the prompt's."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item
from sgpo_core.judges.control_tokens import ControlTokens
from sgpo_core.judges.prompts import MARKER, PROMPTS, keyed_hash
from sgpo_core.judges.sanitize import sanitize
from sgpo_core.types import Problem
from tests.fuzz.hostile import encodable, texts

STRUCTURE = re.compile(
    r"<\|[^\s|<>‹›\[\]]{1,64}\|>|</|<[a-z][\w.:-]{0,63}/?>|\[/?inst\]|\[(?:control|unused)[a-z_]{0,32}[0-9]{1,6}\]"
    r"|◁/?[a-z]{4,16}▷|first\s{1,9}wrong\s{1,9}step[ \t*_]{0,9}:|(?:verdict|response|reference)[ \t*_]{0,9}:",
    re.IGNORECASE,
)
# Control tokens of some tokenizer: those of real ones, and any that overlap and hold each other.
tokens = st.lists(
    st.sampled_from(["<|im_end|>", "PI:URL", "eop", "[gMASK]", "|||EMAIL|||", "<a", "ab", "<|x|>>", "::", "a\nb"])
    | st.text("<>[]|ab:\n", min_size=2, max_size=5).filter(lambda token: token == token.strip()),
    max_size=6,
).map(ControlTokens)


def folded(text: str) -> str:
    """Full-width and other letters as what they look like, for themselves: the code under test folds more."""
    return "".join(plain if len(plain := unicodedata.normalize("NFKC", c)) == 1 else c for c in text)


@given(texts, tokens)
def test_nothing_passes_for_structure(text: str, controls: ControlTokens) -> None:
    once = sanitize(text, controls)
    assert not STRUCTURE.search(folded(once))
    assert [token for token in controls.tokens if token in folded(once)] == []
    assert encodable(once) and not any(sign in once for sign in "\x00\x1b\u200b\u202e")
    assert once.count("\n") == text.count("\n")
    assert sanitize(once, controls) == once


@given(texts, st.none() | texts, texts, st.booleans(), st.integers(0, 3))
def test_a_prompt_keeps_its_structure(prompt: str, worked: str | None, text: str, show: bool, seed: int) -> None:
    """Also where problem and worked solution are hostile: data sets come from elsewhere, too."""
    item = Item(Problem("p", prompt, "1", worked), tuple(segment(text)))
    critique = PROMPTS["critique-v2"].messages(item, show, seed)[1].content
    code, shown = keyed_hash(seed, prompt, item.text).hex(), bool(show and worked)
    names = ["problem", *(["reference"] if shown else []), *(f"step-{i + 1}" for i in range(len(item.steps)))]
    tags = [tag for name in names for tag in (name, f"/{name}")]
    assert re.findall(rf"<(/?[\w-]+)-{code}>", critique) == tags and critique.count("</") == len(names)
    [marker] = PROMPTS["marker-v1"].messages(item, show, seed)
    lines = folded(marker.content).lower().split("\n")
    assert lines[-1] == MARKER.lower() and len(re.findall(r"first\s+wrong\s+step\s*:", "\n".join(lines))) == 1
    assert lines.count("response:") == 1 and lines.count("reference:") == shown
    assert len(lines) - 1 - lines.index("response:") - 1 == len(item.steps)
    assert encodable(critique + marker.content)
