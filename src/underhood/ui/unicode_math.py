"""TeX in Unicode for the terminal: a fraction becomes ``a/b``, an exponent ``x²``, a Greek letter itself.

It knows what the milestones' prose uses and the common rest of inline mathematics: Greek letters, operators, fractions,
roots, sub- and superscripts, accents and text. A command that it does not know is an error, not shown as TeX.
"""

from __future__ import annotations

import re

SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ϵ", "varepsilon": "ε", "zeta": "ζ", "eta": "η",
    "theta": "θ", "iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ",
    "sigma": "σ", "tau": "τ", "upsilon": "υ", "phi": "ϕ", "varphi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
    "Gamma": "Γ", "Delta": "Δ", "Theta": "Θ", "Lambda": "Λ", "Xi": "Ξ", "Pi": "Π", "Sigma": "Σ", "Phi": "Φ",
    "Psi": "Ψ", "Omega": "Ω", "ell": "ℓ", "hbar": "ℏ", "partial": "∂", "nabla": "∇", "infty": "∞", "emptyset": "∅",
    "cdot": "·", "times": "×", "div": "÷", "pm": "±", "mp": "∓", "ast": "*", "star": "⋆", "circ": "∘", "odot": "⊙",
    "oplus": "⊕", "otimes": "⊗", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ll": "≪", "gg": "≫", "ne": "≠",
    "neq": "≠", "approx": "≈", "sim": "∼", "simeq": "≃", "equiv": "≡", "propto": "∝", "in": "∈", "notin": "∉",
    "subset": "⊂", "subseteq": "⊆", "cup": "∪", "cap": "∩", "forall": "∀", "exists": "∃", "to": "→", "rightarrow": "→",
    "leftarrow": "←", "Rightarrow": "⇒", "Leftarrow": "⇐", "mapsto": "↦", "sum": "∑", "prod": "∏", "int": "∫",
    "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", "Vert": "‖", "lVert": "‖", "rVert": "‖", "langle": "⟨",
    "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "dots": "…", "ldots": "…", "cdots": "⋯",
    "vdots": "⋮", "ddots": "⋱", "top": "⊤", "bot": "⊥", "prime": "′", "dagger": "†", "land": "∧", "lor": "∨",
    "neg": "¬", "backslash": "\\", "quad": "  ", "qquad": "    ", "degree": "°",
}  # fmt: skip
WORDS = {
    "log", "ln", "exp", "max", "min", "sin", "cos", "tan", "tanh", "arg", "argmax", "argmin", "softmax", "det", "dim",
    "lim", "sup", "inf", "Pr", "gcd", "mod",
}  # fmt: skip
RELATIONS = set("=≤≥≪≫≠≈∼≃≡∝∈∉⊂⊆→←⇒⇐↦<>±")
SPACES = {",": " ", ";": " ", ":": " ", "!": "", " ": " ", "|": "‖"} | {sign: sign for sign in "{}%$&_"}
ACCENTS = {"hat": "\u0302", "tilde": "\u0303", "bar": "\u0304", "vec": "\u20d7", "dot": "\u0307", "ddot": "\u0308"}
ACCENTS |= {"widehat": "\u0302", "widetilde": "\u0303", "overline": "\u0304"}
PLAIN = {"text", "textbf", "textit", "mathrm", "mathbf", "mathbb", "mathcal", "mathit", "mathsf", "operatorname"}
PLAIN |= {"boldsymbol"}
SIZES = {"left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "displaystyle", "limits", "nolimits"}
BLACKBOARD = {"R": "ℝ", "N": "ℕ", "Z": "ℤ", "C": "ℂ", "Q": "ℚ", "E": "𝔼", "P": "ℙ"}
SUPERSCRIPTS = dict(zip("0123456789+-−=()nixT⊤*′", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱˣᵀᵀ*′", strict=True))
SUBSCRIPTS = dict(zip("0123456789+-−=()aeijnoprstuvxk", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₐₑᵢⱼₙₒₚᵣₛₜᵤᵥₓₖ", strict=True))
SCRIPT_MAX = 4
"""Longer sub- and superscripts are hard to read in small signs: ``_person``."""
PREFIXES = {"∂", "∇", "Δ"}
"""Signs that no space separates from what follows."""
_SMALL = "".join(SUPERSCRIPTS.values()) + "".join(SUBSCRIPTS.values())
SIMPLE = re.compile(rf"\d+|[√∂∇Δ]?[^\W\d][{re.escape(_SMALL)}]*(_\w+)?|\w*\([^()]*\)")
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[{}_^&]|\s+|.", re.DOTALL)
MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$", re.DOTALL)


def unicode_math(tex: str) -> str:
    """A formula as one line of Unicode.

    Raises:
        ValueError: a command that has no sign here, or braces that do not match.
    """
    reader = _TexReader(TOKEN.findall(tex.strip()))
    text = reader.until_end()
    if reader.tokens:
        raise ValueError(f"a brace too many in {tex!r}")
    text = re.sub(rf"\s*([{re.escape(''.join(RELATIONS))}])\s*", r" \1 ", text)
    return " ".join(re.sub(r"([(\[])\s+", r"\1", text).split())


def plain_prose(text: str) -> str:
    """Prose for the terminal: formulas in Unicode, ``*emphasis*`` and `code` without their marks, links as words."""

    def formula(match: re.Match[str]) -> str:
        return unicode_math(match[1] or match[2])

    pieces = re.split(r"(`[^`]+`)", text)
    for at, piece in enumerate(pieces):
        if piece.startswith("`"):
            pieces[at] = piece.strip("`")
            continue
        piece = MATH.sub(formula, piece)
        piece = re.sub(r"\[([^\]]+)\]\(https?://[^)\s]+\)", r"\1", piece)
        pieces[at] = re.sub(r"(?<![\w*])\*([^*\s](?:[^*]*[^*\s])?)\*(?![\w*])", r"\1", piece)
    return "".join(pieces)


class _TexReader:
    """Tokens of a formula, taken from the front."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens

    def until_end(self) -> str:
        """Everything up to a closing brace or the end."""
        text = ""
        while self.tokens and self.tokens[0] != "}":
            token = self.tokens.pop(0)
            if token in "_^":
                text += self._script(self.argument(), token)
            else:
                sign = self._sign(token)
                # "log x", but "log(x)": a word needs a space before a letter and after one.
                if text and sign[:1].isalpha() and token[1:] in WORDS and text[-1].isalnum():
                    text += " "
                text += sign
                if token[1:] in WORDS and self.tokens and _begins_with_a_letter(self.tokens[0]):
                    text += " "
                while sign in PREFIXES and self.tokens and self.tokens[0].isspace():
                    self.tokens.pop(0)
        return text

    def argument(self) -> str:
        """A group in braces, or one sign."""
        while self.tokens and self.tokens[0].isspace():
            self.tokens.pop(0)
        if not self.tokens:
            raise ValueError("a formula ends where an argument is expected")
        token = self.tokens.pop(0)
        if token != "{":
            return self._sign(token)
        text = self.until_end()
        if not self.tokens:
            raise ValueError("a brace is not closed")
        self.tokens.pop(0)
        return text

    def _sign(self, token: str) -> str:
        if token == "{":
            self.tokens.insert(0, token)
            return self.argument()
        if token.isspace() or token == "&":
            return " "
        if not token.startswith("\\"):
            return {"-": "−", "*": "∗", "'": "′"}.get(token, token)
        name = token[1:]
        if name in SPACES or name == "\\":
            return SPACES.get(name, " ")
        if name in SYMBOLS:
            return SYMBOLS[name]
        if name in WORDS:
            return name
        if name in SIZES:
            return ""
        if name in ACCENTS:
            return self.argument() + ACCENTS[name]
        if name in PLAIN:
            argument = self._text() if name.startswith(("text", "operatorname")) else self.argument()
            return BLACKBOARD.get(argument, argument) if name == "mathbb" else argument
        if name in ("frac", "tfrac", "dfrac"):
            return f"{_grouped(self.argument())}/{_grouped(self.argument())}"
        if name == "binom":
            return f"C({self.argument()}, {self.argument()})"
        if name == "underbrace":
            return self._underbrace()
        if name == "sqrt":
            argument = self.argument()
            return f"√{argument}" if len(argument) == 1 else f"√({argument})"
        raise ValueError(f"no sign for {token}")

    def _underbrace(self) -> str:
        """What is braced, with its label in brackets."""
        braced = self.argument()
        if self.tokens[:1] != ["_"]:
            return braced
        self.tokens.pop(0)
        return f"{braced} [{self.argument()}]"

    def _text(self) -> str:
        """A group of words, whose hyphens and stars are not operators."""
        return self.argument().replace("−", "-").replace("∗", "*")

    def _script(self, text: str, mark: str) -> str:
        signs = SUPERSCRIPTS if mark == "^" else SUBSCRIPTS
        if len(text) <= SCRIPT_MAX and all(letter in signs for letter in text):
            return "".join(signs[letter] for letter in text)
        return mark + (text if len(text) == 1 or (mark == "_" and text.isalnum()) else f"({text})")


def _begins_with_a_letter(token: str) -> bool:
    return token.isalnum() or (token[0] == "\\" and token[1:].isalpha() and token[1:] not in SIZES)


def _grouped(text: str) -> str:
    """An operand of a fraction, in brackets unless it is a number, a variable or a call."""
    return text if len(text) == 1 or SIMPLE.fullmatch(text) else f"({text})"
