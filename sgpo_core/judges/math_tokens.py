"""Model text cut into the tokens of arithmetic: numbers, operators, words, and what belongs to neither.

Plain text and LaTeX give the same tokens: `$5 \\times 5 = 25$`, `5 * 5 = 25` and `5 x 5 = 25`. One pass of one regular
expression, whose time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """END parts equations: punctuation, an inequality, the end of a line. OTHER makes all that it stands in
    unreadable."""

    NUMBER = "number"
    OPERATOR = "operator"
    EQUALS = "equals"
    OPEN = "open"
    CLOSE = "close"
    FRACTION = "fraction"
    POWER = "power"
    FACTORIAL = "factorial"
    PERCENT = "percent"
    WORD = "word"
    END = "end"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Token:
    """`text` is as written, but for operators, which are one of `+-*/`, numbers, which have lost their separators of
    thousands, and words, which are in lower case. `start` and `end` are characters of the text; `joined`: it follows
    the token before without a blank."""

    kind: Kind
    text: str
    start: int
    end: int
    joined: bool


# Of the same length as what they stand for, so that places in the text stay what they are. Markdown's bold is no
# multiplication; two stars between two numbers are a power.
_SAME_LENGTH = (
    (re.compile(r"(?<=\d)\*\*(?=\d)|(?<=\d )\*\*(?= \d)"), "^ "),
    (re.compile(r"\*\*|__"), "  "),
    (re.compile("\u2212"), "-"),
    (re.compile(r"(?<= )\u2013(?= )"), "-"),
)
_PATTERN = re.compile(
    r"""
      (?P<blank>     [ \t\u00a0]+ | \\[,;:!\ ()] | [~&€£] | \\?\$(?!\$)
                   | \\(?:left|right|displaystyle|boxed|[bB]igg?[lr]?)(?![a-zA-Z])
                   | \^\ ?(?:\{\ ?\\circ\ ?\}|\\circ(?![a-zA-Z])) | ° | \\degree(?![a-zA-Z]) )
    | (?P<line>      \\\\(?:\[\w*\])? | [\r\n] )
    | (?P<odd>       [0-9][0-9.,]{0,30}:[0-9]+ | [0-9]+(?:\.[0-9]+){2,} | [0-9]+[eE][+-]?[0-9]+ | 0[0-9]+(?![.0-9])
                   | \.\.+ | (?<=[0-9]),(?=[0-9])
                   | [0-9]{0,30}\.[0-9]{0,30}\ ?\\(?:overline|bar|dot|l?dots)(?![a-zA-Z]) )
    | (?P<number>    [0-9]{1,3}(?:(?:,|\{,\}|\\!,|,\\!|\\,|\{,\\!\})[0-9]{3}(?![0-9]))+(?:\.[0-9]+)?
                   | [0-9]+(?:\.[0-9]+)? | (?<![0-9)\]}])\.[0-9]+ )
    | (?P<end>       \\(?:begin|end)\{[a-zA-Z*]{1,20}\} | \\[\[\]{}] | \$\$
                   | => | ==+ | [!<>:]=(?!=) | =[<>] | [.,:;?"“”—<>≤≥≠≡→⇒⟹✓✔]
                   | \\(?:leq?|geq?|neq?|equiv|to|lt|gt|(?:long)?rightarrow|(?:Long)?[rR]ightarrow|implies|iff|q?quad)
                     (?![a-zA-Z]) )
    | (?P<equals>    [=≈≃≅] | \\(?:approx|simeq|thickapprox)(?![a-zA-Z]) )
    | (?P<fraction>  \\[dtc]?frac(?![a-zA-Z]) )
    | (?P<percent>   \\?% | percent\b )
    | (?P<textual>   \\(?:text|mathrm|mbox|textbf|textit|textrm|mathbf)\ ?\{[^{}\\$]{0,100}\} )
    | (?P<times>     [*×·⋅∙] | \\(?:times|cdot|ast)(?![a-zA-Z]) )
    | (?P<divide>    (?:[/÷]|\\div(?![a-zA-Z]))(?!\ ?[a-zA-Z]) )
    | (?P<plus>      \+ )
    | (?P<minus>     -(?![a-zA-Z]) )
    | (?P<power>     \^ )
    | (?P<factorial> !(?=\ ?(?:[=+\-*/×·÷)}\]^$]|\\)) )
    | (?P<exclaimed> ! )
    | (?P<open>      [(\[{] )
    | (?P<close>     [)\]}] )
    | (?P<word>      [-/]?[^\W\d_]+(?:['’/-][^\W\d_]+)* )
    | (?P<other>     \\[a-zA-Z]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)
LINE = "\n"  # `text` of the END that is the end of a line
_OPERATORS = {"times": "*", "divide": "/", "plus": "+", "minus": "-"}
_ENDS = {"end", "exclaimed", "line"}


def words(listed: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(listed.split())


# A letter may stand for a number, these can't; so they may follow a number without a blank, as "5kg" does.
_UNITS = words(
    "kg mg lb lbs oz mm cm km ft in mi yd ml hr hrs min mins sec kb mb gb am pm mph kmh km/h kb/s m/s mm/s cents pts"
)
_PLAIN_WORD = re.compile(r"[^\W\d_]+(?:[/'-][^\W\d_]+)*[.,:]?")


def tokens(text: str) -> list[Token]:
    """All of them but blanks, in order."""
    for pattern, stand_in in _SAME_LENGTH:
        text = pattern.sub(stand_in, text)
    found: list[Token] = []
    for match in _PATTERN.finditer(text):
        name = match.lastgroup or ""
        if name == "blank":
            continue
        before = found[-1] if found and found[-1].end == match.start() else None
        if name == "textual":
            found += _words_of_latex(match, before is not None)
        else:
            found.append(_token(name, match, before))
    return _line_beginnings(_multiplications(found))


def _token(name: str, match: re.Match[str], before: Token | None) -> Token:
    """`before`: the token that this one is joined to."""
    kind, text = Kind.OTHER, match[0]
    if name in _ENDS:
        kind, text = Kind.END, LINE if name == "line" else text
    elif name in _OPERATORS:
        kind, text = Kind.OPERATOR, _OPERATORS[name]
    elif name == "number":
        if before is None or before.kind is not Kind.WORD or not before.text.isascii():  # "v1", "x2" are names
            kind, text = Kind.NUMBER, re.sub(r"[^0-9.]", "", text)
    elif name == "word":
        text = text.lower()
        kind = _kind_of_word(text, before, match.string[match.end() : match.end() + 2])
    elif name not in ("odd", "other"):
        kind = Kind(name)
    return Token(kind, text, match.start(), match.end(), before is not None)


def _kind_of_word(text: str, before: Token | None, behind: str) -> Kind:
    """OTHER for what may be a variable."""
    if text[0] in "-/":  # "20-dollar bills", "9 minutes/load"; with a blank before it, a subtraction or division
        return Kind.WORD if before is not None and len(text) > 2 else Kind.OTHER
    if before is not None and before.kind in (Kind.NUMBER, Kind.CLOSE):
        return Kind.WORD if text in _UNITS or not text.isascii() else Kind.OTHER
    if text in ("a", "i"):
        return Kind.WORD if re.match(r" [^\W_]", behind) else Kind.OTHER
    return Kind.OTHER if len(text) == 1 and text.isascii() and text != "x" else Kind.WORD


def _words_of_latex(match: re.Match[str], joined: bool) -> list[Token]:
    """Of a LaTeX text; anything else in it is not read."""
    written = match[0].partition("{")[2].rstrip("}").lower().split()
    kinds = [Kind.WORD if len(word) > 1 and _PLAIN_WORD.fullmatch(word) else Kind.OTHER for word in written]
    return [Token(kind, word, match.start(), match.end(), joined) for kind, word in zip(kinds, written, strict=True)]


def _multiplications(found: list[Token]) -> list[Token]:
    """An x between two operands is a multiplication, elsewhere a variable."""
    result = []
    for i, token in enumerate(found):
        if token.kind is Kind.WORD and token.text == "x":
            between = 0 < i < len(found) - 1 and _ends_operand(found[i - 1]) and _begins_operand(found[i + 1])
            kind, text = (Kind.OPERATOR, "*") if between else (Kind.OTHER, "x")
            token = Token(kind, text, token.start, token.end, token.joined)
        result.append(token)
    return result


def _ends_operand(token: Token) -> bool:
    return token.kind in (Kind.NUMBER, Kind.CLOSE, Kind.PERCENT, Kind.FACTORIAL, Kind.WORD)


def _begins_operand(token: Token) -> bool:
    return token.kind in (Kind.NUMBER, Kind.OPEN, Kind.FRACTION)


def _line_beginnings(found: list[Token]) -> list[Token]:
    """A line that begins with an equals sign goes on with the line before. One that begins with an operator may, or
    may be an item of a list; that is not read where a number comes before it. But below a line with an equation
    `-5 - 2 = -7` is one, too, whose first number is negative."""
    result: list[Token] = []
    last: Token | None = None  # that is no end of a line
    equation = below_equation = False  # whether this line, and the last one that is not empty, has an equals sign
    for i, token in enumerate(found):
        begins = not result or result[-1].text == LINE
        if begins and token.text != LINE:
            below_equation, equation = equation, False
        equation = equation or token.kind is Kind.EQUALS
        if begins and token.kind is Kind.EQUALS:
            while result and result[-1].text == LINE:
                result.pop()
        elif begins and token.kind is Kind.OPERATOR and not (below_equation and _signs(found[i : i + 2])):
            if last is not None and last.kind not in (Kind.END, Kind.WORD):
                token = Token(Kind.OTHER, token.text, token.start, token.end, token.joined)
            elif i + 1 < len(found) and not found[i + 1].joined:
                continue
        result.append(token)
        last = token if token.text != LINE else last
    return result


def _signs(pair: Sequence[Token]) -> bool:
    """Whether the first of two tokens is the sign of the second, a number."""
    return len(pair) == 2 and pair[0].text == "-" and pair[1].kind is Kind.NUMBER and pair[1].joined
