"""Strategies for what others write: texts, numbers and rows, made of the pieces that the code looks for.

Random characters alone would not get past the first check; these reach the rules behind it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sgpo_core.data.example_solutions import EXAMPLES
from sgpo_core.judges.injections import INJECTIONS

STEPS = (
    *("Step 1: ", "Step 2. ", "step 3\n", "## Step 4\n", "**5. ", "6) ", "(7) So", "8、", "第一步：", "步骤 9："),
    *("- ", "* ", "Answer: ", "Final answer", "the answer is ", "#### ", "Therefore ", "所以", "\n", "\n\n", "\r\n"),
    *("\r", " ", "\n \t\n", ". ", "! ", "? ", "。", "e.g. ", "No. 7 ", "at 4 p.m. ", "\t", "\x0b", "\x1c", "\x85"),
    *("\u2028", "\u3000"),
)
LATEX = (
    *("\\boxed{", "\\boxed {", "\\boxed", "\\fbox{", "{", "}", "\\{", "\\}", "\\\\", "\\", "$", "$$", "\\[", "\\]"),
    *("\\(", "\\frac{", "\\frac12", "\\dfrac", "\\sqrt{", "\\text{", "\\text{ cm}", "\\left(", "\\right)"),
    *("\\begin{align}", "\\end{align}", "\\begin{pmatrix}", "&", "^", "_", "^{", "\\circ", "\\%", "%", "\\pi"),
    *("\\infty", "\\cup", "\\pm", "\\times ", "\\cdot", "\\div", "\\le ", "\\iff ", "\\,", "\\!", "\\quad", "\\ "),
    *("~", "```", "~~~", "<<1+1=2>>"),
)
NUMBERS = (
    *("0", "1", "-1", "007", "+7", "42", "1,234", "1{,}234", "1\\,234", "1 1/2", "1/3", "1/0", "0.5", ".5", "5."),
    *("1e-8", "1e9999", "10^{9999}", "9^{9^{9^{9}}}", "2(3)", "5!", "50%", "[0;1]", "]2,5[", "(1,2)", "x=5", "= "),
    *(" + ", " - ", " * ", " / ", "**", "½", "²", "٣", "३", "Ⅷ", "①", "√2", "−", "×", "÷", "≤", "°", "NaN", "inf"),
    *("9" * 400, "3." * 200),
)
CONTROLS = (
    *("<think>", "</think>", "[THINK]", "[/THINK]", "◁think▷", "◁/think▷", "<thought>", "</seed:think>"),
    *("<|im_end|>", "<|im_start|>", "[INST]", "[/INST]", "<<SYS>>", "</s>", "<s>", "<eos>", "<|", "|>", "</", "<"),
    *(">", "＜|im_end|＞", "[|system|]", "[UNUSED_TOKEN_146]", "[control_12]", ">>QUESTION<<", "]~b]", "[e~["),
    *("<｜User｜>", "Verdict: none", "First wrong step: ", "first error:", "Fіrst wrоng stеp:", "Response:\n"),
    *("Reference:\n", "\nuser:", "none", "-1"),
)
MARKUP = (
    *("<script>", "</script>", "</title>", "<img src=x onerror=alert(1)>", '"', "'", "' onload='x", "&lt;", "&#60;"),
    *("&", "<!--", "-->", "]]>", "<?", "<!x", "{{7*7}}", "{%", "%}", "{#", "${7*7}"),
)
SIGNS = (
    *("\x00", "\x07", "\x1b[2J", "\x7f", "\x9b", "\xad", "\u200b", "\u200d", "\u202e", "\u2066", "\ufeff", "�", "️"),
    *("\ud800", "\udfff", "\ud83d", "😀", "\U000e0041", "́", "ﬁ", "ß", "İ", "ǅ", "é", "加", "ש"),
)
FRAGMENTS = (*STEPS, *LATEX, *NUMBERS, *CONTROLS, *MARKUP, *SIGNS)

any_text = st.text(st.characters() | st.sampled_from("".join(SIGNS)), max_size=12)  # with lone surrogates
_digits = st.builds(lambda digit, n: digit * n, st.sampled_from("019"), st.integers(1, 6000))
_fragment = st.sampled_from(FRAGMENTS)
_piece = st.one_of(_fragment, _fragment, any_text, _digits, st.sampled_from([i.text for i in INJECTIONS]))


def _put_into(solution: str, piece: str, at: int) -> str:
    return solution[: at % len(solution)] + piece + solution[at % len(solution) :]


# Pieces in any order, and solutions as models write them with a piece somewhere in it.
texts = st.one_of(
    st.lists(_piece, max_size=30).map("".join),
    st.builds(_put_into, st.sampled_from(list(EXAMPLES.values())), _piece, st.integers(0, 2000)),
)
unicode_texts = texts.map(lambda text: "".join(filter(encodable, text)))
answers = st.one_of(st.lists(st.sampled_from((*NUMBERS, *LATEX, *SIGNS)), max_size=8).map("".join), texts)

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 1, 2, 3, 2**31, 2**63, -(2**63) - 1, 10**400]),
    st.floats(),
    st.sampled_from([0.0, 0.5, 1.0, -0.0]),
    st.sampled_from(["", " ", "none", "null", "true", "1", "ok", "abstained", "correct", "inf", "nan", "[]", "{}"]),
    any_text,
    texts,
)
# What JSON can say, in Python's way of reading it: with infinities, NaN and lone surrogates.
values: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=3)),
    max_leaves=8,
)


def encodable(text: str) -> bool:
    """Whether it is valid Unicode, so that files, tables and databases take it."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
