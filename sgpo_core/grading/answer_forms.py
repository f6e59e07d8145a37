"""What an answer looks like, put aside: signs of Unicode, fonts, spaces, units of style. What it says stays.

Both answers pass through `canonical` before they are compared; `decided` compares those that are words, letters of a
multiple choice, or equations between plain numbers, where a maths library would read letters as factors of a product.
Every rule is linear in the length of the text, which grader.py bounds. Rules belong here only with a line in
cases.yaml that fails without them.
"""

from __future__ import annotations

import re
import unicodedata

_SIGNS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "∞": r"\infty ", "π": r"\pi ", "≤": r"\le ",
    "≥": r"\ge ", "∪": r"\cup ", "∅": r"\emptyset ", "±": r"\pm ", "°": r"^\circ ", "\u2044": "/",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_VULGAR = re.compile("[¼½¾⅐-⅞]")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\w+))")

_STYLES = re.compile(
    r"\\(?:displaystyle|textstyle|boldsymbol|bm|limits|color\s*\{\w*\}|textcolor\s*\{\w*\})(?![a-zA-Z])"
)
_SPACES = re.compile(r"\\\\|\\ |~")  # a row's end, two backslashes, is found first and stays
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_E_NOTATION = re.compile(r"([+-]?\d+(?:\.\d+)?)[eE]([+-]?\d{1,4})", re.ASCII)
_PERCENT = re.compile(r"(\d)\s*(?:\\text\s*\{\s*percent\s*\}|percent)$", re.IGNORECASE)
# An interval as it is written elsewhere: ]2,5[ open at both ends, and 0;1 for 0,1.
_INTERVAL = re.compile(r"([\[\](])([^\[\]();,]+)[;,]([^\[\]();,]+)([\[\])])")
_MIXED = re.compile(r"([+-]?\d+) (\d+)/(\d+)", re.ASCII)
_HEDGE = re.compile(r"(?:\\approx|\\text\s*\{\s*(?:approximately|about)\s*\}|approximately |about )\s*")
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|operatorname|mbox)\s*\{([^{}]*)\}")

_WORDS = re.compile(r"[^\W\d_]+(?:[ -][^\W\d_]+)*")
_ARTICLE = re.compile(r"(?:an?|the) ", re.IGNORECASE)
_MIN_BARE_WORD = 4  # letters; pq or abc without \text{} may be a product
_CHOICE = re.compile(r"\(?([A-J])\)?")
_CHOSEN = re.compile(
    r"(?:(?:choice|option|answer):? )?(?:\(?([A-Ja-j])\)?\.?|\(?([A-J])[).:] ?(?!or\b|and\b|[,/]).+)", re.IGNORECASE
)
_SEVERAL = re.compile(r",|;|\\text|\bor\b|\band\b|\\cup|\\pm")


def canonical(text: str) -> str:
    """The same answer in plain LaTeX: one kind of space, no style, no signs of Unicode that LaTeX has a name for."""
    if not text.isascii():
        text = _latex(_UNSEEN.sub("", text))
    # Runs of white space become one space and don't vanish: `1 1/2` is not `11/2`.
    text = _SPACES.sub(lambda found: found[0] if found[0] == "\\\\" else " ", _STYLES.sub("", text))
    text = " ".join(text.split())
    text = text.removesuffix("\\\\").rstrip().removesuffix(".").rstrip().replace(r"\varnothing", r"\emptyset")
    text = _HEDGE.sub("", text, count=1) if _HEDGE.match(text) else text
    if (inner := text[1:-1]) and text[0] == text[-1] == "$" and "$" not in inner:
        text = inner.strip()
    text = _PERCENT.sub(r"\1\\%", text)
    if scientific := _E_NOTATION.fullmatch(text):
        text = f"{scientific[1]} \\cdot 10^{{{int(scientific[2])}}}"
    if interval := _INTERVAL.fullmatch(text):
        opening, low, high, closing = interval.groups()
        text = f"{opening.replace(']', '(')}{low},{high}{closing.replace('[', ')')}"
    if mixed := _MIXED.fullmatch(text):
        text = f"{mixed[1]}\\frac{{{mixed[2]}}}{{{mixed[3]}}}"
    return text


def decided(gold: str, answer: str) -> bool | None:
    """Whether two canonical answers mean the same, where the gold one is a word or a letter of a choice; else None."""
    expected, given = _unwrapped(gold), _unwrapped(answer)
    if letter := _CHOICE.fullmatch(expected):
        chosen = _CHOSEN.fullmatch(given)
        return (chosen[1] or chosen[2]).upper() == letter[1] if chosen else None
    if _WORDS.fullmatch(expected) and (expected != gold or len(expected) >= _MIN_BARE_WORD):
        return _ARTICLE.sub("", expected, count=1).casefold() == _ARTICLE.sub("", given, count=1).casefold()
    return None


def sides(answer: str) -> list[str]:
    """The parts of a chain of equations (`6 \\times 7 = 42`), of anything else just itself. An answer that joins
    several is no chain."""
    return [answer] if _SEVERAL.search(answer) else [part.strip() for part in answer.split("=")]


# What may stand around an operator without being an operand: spaces of TeX, and its ways to say that + is one.
_TEX_SPACES = re.compile(r"\\[,;:!> ]|\\q?quad(?![a-zA-Z])|\\math(?:bin|rel|ord)(?![a-zA-Z])|~")
_BRACED_OPERATOR = re.compile(r"\{\s*([-+*])\s*\}")
_IN_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{[^{}]*\}")
# A sum, difference or product that is left to do: an operand, an operator, an operand with or without a sign.
_UNDONE = re.compile(r"[\d)}\]|!]\s*(?:[-+*×·]|\\times|\\cdot|\\ast)[-+\s]*[\d({\\|.]")
_JOINED = re.compile(
    r"\\(?:iff|implies|impliedby|to|gets|mapsto|(?:long|Long)?(?:left|right|leftright|Left|Right|Leftright)arrow)"
    r"(?![a-zA-Z])|[→⇒⇔←]|[-=]>"
)
_DIGIT = re.compile(r"\d")
_OTHER_BASE = re.compile(r"\d\s*_")
_TWO_QUANTITIES = re.compile(r"\d\s*(?:§\s*|(?<![\\a-zA-Z])[a-zA-Z]{2,}\s+)+\d")
_TAKEN_BACK = re.compile(
    r"\b(?:is|are|was|not|no|wrong|incorrect|false|rejected?|never|neither|isn't|cannot|can't|impossible|unless)\b",
    re.IGNORECASE,
)
_WITH_UNIT = re.compile(r"(.*[\d)}])\s+((?:[a-zA-Z]{2,})(?:[ -][a-zA-Z]{2,}){0,4})\.?")
_MATHEMATICS = {
    "pi",
    "tau",
    "sqrt",
    "log",
    "ln",
    "sin",
    "cos",
    "tan",
    "exp",
    "inf",
    "infinity",
    "choose",
    "mod",
    "or",
    "and",
}


def is_no_number(answer: str) -> bool:
    """Whether an answer to a question for a plain number, which does not end in one, says something else than one
    number, though a maths library would find that number in it: a sum or product left to do (restating the problem,
    "284471 + 936979", would be the easiest way to a reward), a number of another base, or two quantities."""
    words = _IN_TEXT.sub("§", answer)
    flat = _BRACED_OPERATOR.sub(r"\1", _TEX_SPACES.sub("", words))
    return any((_UNDONE.search(flat), _OTHER_BASE.search(flat), _TWO_QUANTITIES.search(words)))


def says_more(answer: str) -> bool:
    """Whether an answer joins several statements (x=7 \\iff x=42), or takes its number back (42 is wrong)."""
    last = max((found.end() for found in _DIGIT.finditer(answer)), default=0)
    return any((_JOINED.search(answer), _TAKEN_BACK.search(answer, last)))


def without_unit(answer: str) -> str:
    """A number with a unit in plain words behind it (25 miles per hour) without the words."""
    match = _WITH_UNIT.fullmatch(answer)
    return match[1] if match and not _MATHEMATICS & set(match[2].lower().replace("-", " ").split()) else answer


def _latex(text: str) -> str:
    text = _VULGAR.sub(
        lambda sign: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", sign[0]).split("\u2044")), text
    )
    text = _RAISED.sub(lambda digits: f"^{{{digits[0].translate(_SUPERSCRIPTS)}}}", text)
    text = _ROOT.sub(lambda root: f"\\sqrt{{{root[1] or root[2]}}}", text)
    return "".join(_SIGNS.get(sign, sign) for sign in unicodedata.normalize("NFKC", text))


def _unwrapped(text: str) -> str:
    """Without fonts, and without the spaces that they leave."""
    return " ".join(_WRAPPED.sub(r"\1", text).replace("\\,", " ").split()).removesuffix(".")
