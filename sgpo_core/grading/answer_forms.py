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
_STRETCHED = re.compile(r"\\(?:left|right)\s*(?=[\[\]()|])")
_MIXED = re.compile(r"([+-]?\d+) (\d+)/(\d+)", re.ASCII)
_HEDGE = re.compile(r"(?:\\approx|\\text\s*\{\s*(?:approximately|about)\s*\}|approximately |about )\s*")
WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|operatorname|mbox)\s*\{([^{}]*)\}")

_THIN = (r"\,", r"\;", r"\:", r"\!")
_TOKEN = re.compile(r"\\(?:text|mbox|textrm)\s*\{([^{}]*)\}|\\[a-zA-Z]+|\\.|\s+|.", re.DOTALL)
_NOT_SEEN = {*_THIN, r"\ ", r"\left", r"\right", r"\quad", r"\qquad", "$", "~"}
_SAME = {r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\leq": r"\le", r"\geq": r"\ge", r"\geqslant": r"\ge"}
_OPENS, _CLOSES = {"(", "[", "{", r"\{"}, {")", "]", "}", r"\}"}
_COMMAS = {",", r"\text{and}", r"\text{or}"}
_GROUP = 3  # digits between two commas of thousands

_WORDS = re.compile(r"[^\W\d_]+(?:[ -][^\W\d_]+)*")
_ARTICLE = re.compile(r"(?:an?|the) ", re.IGNORECASE)
_MIN_BARE_WORD = 4  # letters; pq or abc without \text{} may be a product
_CHOICE = re.compile(r"\(?([A-J])\)?")
_CHOSEN = re.compile(
    r"(?:(?:choice|option|answer):? )?(?:\(?([A-Ja-j])\)?\.?|\(?([A-J])[).:] ?(?!or\b|and\b|[,/]).+)", re.IGNORECASE
)
_GROUPED = re.compile(r"(?<=\d)(?:\{,\}|,(?:\\! ?)?)(?=\d{3}(?!\d))", re.ASCII)
_JOINING = re.compile(r"\b(?:or|and)\b|[,;=]")
_SEVERAL = re.compile(r",|;|\\text|\bor\b|\band\b|\\cup|\\pm")


def canonical(text: str) -> str:
    """The same answer in plain LaTeX: one kind of space, no style, no signs of Unicode that LaTeX has a name for."""
    if not text.isascii():
        text = _latex(_UNSEEN.sub("", text))
    # Runs of white space become one space and don't vanish: `1 1/2` is not `11/2`.
    text = _SPACES.sub(lambda found: found[0] if found[0] == "\\\\" else " ", _STYLES.sub("", text))
    text = trimmed(" ".join(text.split()))
    text = trimmed(text.removesuffix("\\\\").rstrip().removesuffix(".")).replace(r"\varnothing", r"\emptyset")
    text = _HEDGE.sub("", text, count=1) if _HEDGE.match(text) else text
    if (inner := text[1:-1]) and text[0] == text[-1] == "$" and "$" not in inner.replace(r"\$", ""):
        text = trimmed(trimmed(inner).removesuffix("."))
    if text[:2] == r"\(" and text[-2:] == r"\)" and r"\(" not in text[2:]:
        text = trimmed(trimmed(text[2:-2]).removesuffix("."))
    text = _PERCENT.sub(r"\1\\%", text)
    if scientific := _E_NOTATION.fullmatch(text):
        text = f"{scientific[1]} \\cdot 10^{{{int(scientific[2])}}}"
    text = _usual_intervals(text)
    if mixed := _MIXED.fullmatch(text):
        text = f"{mixed[1]}\\frac{{{mixed[2]}}}{{{mixed[3]}}}"
    return text


def trimmed(text: str) -> str:
    """Without spaces of any kind, TeX's included, at both ends."""
    start, end = 0, len(text)
    while start < end and (step := 1 if text[start].isspace() else 2 if text[start : start + 2] in _THIN else 0):
        start += step
    while end > start and (step := 1 if text[end - 1].isspace() else 2 if _ends_thin(text, end) else 0):
        end -= step
    return text[start : max(start, end)]


def _ends_thin(text: str, end: int) -> bool:
    """Whether a space of TeX ends here; the last backslash of a row's end begins none."""
    return text[max(0, end - 2) : end] in _THIN and text[max(0, end - 3) : end - 2] != "\\"


def _usual_intervals(text: str) -> str:
    """An interval, or a union of intervals, with a comma between the ends and brackets turned inward."""
    parts = text.split(r"\cup")
    found = [_INTERVAL.fullmatch(_STRETCHED.sub("", part).strip()) for part in parts]
    intervals = [interval.groups() for interval in found if interval]
    if len(intervals) < len(parts):
        return text
    ends = [(a.replace("]", "("), low, high, b.replace("[", ")")) for a, low, high, b in intervals]
    return r" \cup ".join(f"{a}{low},{high}{b}" for a, low, high, b in ends)


def skeleton(answer: str) -> list[str]:
    """What TeX reads, without how it sets it: the tokens, without spaces, stretched brackets, dollars, and braces round
    one token. Two answers with equal tokens are equal, also where a maths library can't read them. Elements of a list
    that stands in no bracket are sorted. A space stays between two digits: `1 1/2` is not `11/2`."""
    tokens: list[str] = []
    waiting, before = False, ""
    for found in _TOKEN.finditer(answer):
        token = _SAME.get(found[0], found[0])
        if found[1] is not None:
            token = "\\text{" + " ".join(found[1].split()) + "}"
        if token.isspace() or token in _NOT_SEEN:
            waiting = waiting or token.isspace()
            continue
        if waiting and token.isdigit() and tokens and tokens[-1].isdigit():
            tokens.append(" ")
        waiting = False
        if token == "}" != before and tokens[-2:-1] == ["{"]:
            tokens[-2:] = tokens[-1:]
        else:
            tokens.append(token)
        before = token
    return _sorted_list(tokens)


def _sorted_list(tokens: list[str]) -> list[str]:
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token in _OPENS) - (token in _CLOSES)
        if token in _COMMAS and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    # Commas of thousands have an order: -1,234 is not 234,-1.
    grouped = any(len(part) >= _GROUP and all(map(str.isdigit, part[:_GROUP])) for part in parts[1:])
    return tokens if grouped else [token for part in sorted(parts) for token in (",", *part)]


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
    several is no chain; a unit joins nothing, and a comma of thousands neither."""
    joined = _IN_TEXT.sub(lambda text: text[0] if _JOINING.search(text[0]) else "", _GROUPED.sub("", answer))
    return [answer] if _SEVERAL.search(joined) else [part.strip() for part in answer.split("=")]


# What may stand around an operator without being an operand: spaces of TeX, and its ways to say that + is one.
TEX_SPACES = re.compile(r"\\[,;:!> ]|\\q?quad(?![a-zA-Z])|\\math(?:bin|rel|ord)(?![a-zA-Z])|~")
_BRACED_OPERATOR = re.compile(r"\{\s*([-+*])\s*\}")
_IN_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{[^{}]*\}")
# A sum, difference or product that is left to do: an operand, an operator, an operand with or without a sign.
_UNDONE = re.compile(r"[\d)}\]|!]\s*(?:[-+*×·]|\\times|\\cdot|\\ast)[-+\s]*[\d({\\|.]")
_JOINED = re.compile(
    r"\\(?:iff|implies|impliedby|to|gets|mapsto|(?:long|Long)?(?:left|right|leftright|Left|Right|Leftright)arrow)"
    r"(?![a-zA-Z])|[→⇒⇔←]|[-=]>"
)
_DIGIT = re.compile(r"\d")
# The same for divisions: 10/2 is no answer to a question for an integer.
_UNDIVIDED = re.compile(r"[\d)}\]|!]\s*(?:[/:÷]|\\div|\\over(?![a-zA-Z]))[-+\s]*[\d({\\|.]")
_BAR = re.compile(r"\\[dtc]?frac\s*(?:\\[a-zA-Z]+|[-+{(\[|.\s]){0,8}\d")
_POWER_OF_UNIT = re.compile(r"§\s*\^\s*(?:\d|\{\s*-?\d\s*\})")
# What is one number, from the inside to the outside: # stands for one that was found before.
_ONE = r"(?:(?<![\d.])(?:\d[\d.]*|\.\d+)|#)"
_ONE_NUMBER = [
    re.compile(way.replace("ONE", _ONE), re.ASCII)
    for way in (
        r"\{\s*(?:[-+]\s*)?ONE\s*\}",
        r"\\sqrt\s*(?:\[\s*ONE\s*\])?\s*[\d#]",
        r"\\(?:log|ln|lg)(?:\s*_\s*[\d#])?\s*ONE",
        r"(?<![_\d.])ONE\s*(?:\^\s*[-+]?[\d#]|\*\*\s*ONE)",  # not the bounds of an integral
        r"ONE\s*\\overline\s*[\d#]",
        r"ONE\s*!",
        r"\\lfloor\s*(?:[-+]\s*)?ONE\s*\\rfloor|\\lceil\s*(?:[-+]\s*)?ONE\s*\\rceil",
        r"\|\s*(?:[-+]\s*)?ONE\s*\||\(\s*(?:[-+]\s*)?ONE\s*\)",
    )
]
_ONE_QUOTIENT = [
    re.compile(way.replace("ONE", _ONE), re.ASCII) for way in (r"\\[dtc]?frac\s*[\d#]\s*[\d#]", r"ONE\s*/\s*ONE")
]
_MAX_DEPTH = 16
_SCIENTIFIC = re.compile(r"(?<![\d.])([1-9](?:\.\d+)?)\s*(?:\\times|\\cdot|\*)\s*10\s*(?=\^)", re.ASCII)
_OTHER_BASE = re.compile(r"\d\s*_")
_TWO_QUANTITIES = re.compile(r"\d\s*(?:§\s*|(?<![\\a-zA-Z])[a-zA-Z]{2,}\s+)+\d")
_TAKEN_BACK = re.compile(
    r"\b(?:is|are|was|not|no|wrong|incorrect|false|rejected?|never|neither|isn't|cannot|can't|impossible|unless)\b",
    re.IGNORECASE,
)
_WITH_UNIT = re.compile(
    r"(.*[\d)}])\s+((?:[a-zA-Z]{2,})(?:[ -][a-zA-Z]{2,}){0,4}|[a-z](?=/[a-z]))(?:/[a-z]{1,3})?(?:\^(?:\d|\{\d\}))?\.?"
)
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


def is_no_number(answer: str, whole: bool) -> bool:
    """Whether an answer to a question for a rational number, which does not end in one, says something else than one
    number, though a maths library would find that number in it: a calculation left to do (restating the problem,
    "284471 + 936979", would be the easiest way to a reward), a number of another base, or two quantities. If the
    number is `whole`, a division left to do is none either. 4.5 \\times 10^{33} is no product."""
    words = _POWER_OF_UNIT.sub("§", _IN_TEXT.sub("§", answer))
    flat = _SCIENTIFIC.sub("10", _BRACED_OPERATOR.sub(r"\1", TEX_SPACES.sub("", words)))
    undivided = whole and (_UNDIVIDED.search(flat) or _BAR.search(flat))
    other = any((_UNDONE.search(flat), undivided, _OTHER_BASE.search(flat), _TWO_QUANTITIES.search(words)))
    return other or _numbers(flat, whole) > 1


def _numbers(flat: str, whole: bool) -> int:
    """How many numbers stand in a calculation, and so are left to be put together, whatever its operators are: \\int,
    \\gcd, ⊕ or none. What can stand for one number (a power, a root, ...) counts as one."""
    ways = [*_ONE_NUMBER, *(() if whole else _ONE_QUOTIENT)]
    flat, before = _STRETCHED.sub("", flat), ""
    for _ in range(_MAX_DEPTH):
        if flat == before:
            break
        before = flat
        for way in ways:
            flat = way.sub("#", flat)
    return len(re.findall(_ONE, flat))


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
    return " ".join(WRAPPED.sub(r"\1", text).replace("\\,", " ").split()).removesuffix(".")
