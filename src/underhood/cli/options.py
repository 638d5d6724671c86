"""Options of a verb: a frozen dataclass becomes a parser, a help page and one-line usage errors.

The string under each field is its help (or an entry of the class's ``Attributes:``), its type says what it takes, and
a field without a default is required::

    @dataclass(frozen=True)
    class Args:
        '''Continues a prompt.'''

        run: Positional[Path]
        '''Folder of the run.'''

        tokens: int = 100
        '''How many tokens to write at most.'''

A name that Python keeps for itself takes an underscore at its end: ``from_`` is ``--from``.
Types: str, int, float, bool, Path, Literal[...], tuple[T, ...] and ``T | None``. A bool becomes ``--name`` and
``--no-name``. A field of any other type can only be set in a TOML file, unless the class variable ``NESTED`` says
which tables it holds, by a function that gives the dataclass of each: then ``--table-name`` sets one of their fields.
The word ``none`` switches off what a field of type ``T | None`` has a value for.
If the class has a field ``config``, the file it names is read first, and the command line overrides it.
Class variables ``FIRST`` (names of fields) and ``REST`` (a heading) divide a long help page.
"""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin

from underhood.cli.field_docs import description, field_docs
from underhood.core.errors import UserError, nearest

T = TypeVar("T")
Value = TypeVar("Value")
WIDTH, NONE = 80, object()  # None itself is an option that was left out


class _PositionalMark:
    """Marks a field that is given by place, without its name."""


Positional = Annotated[Value, _PositionalMark]
"""``Positional[Path]``: the argument is given by its place, not by ``--name``."""


class UsageError(UserError):
    """The command line itself is wrong; the message is complete."""

    def __init__(self, message: str):
        super().__init__(message)
        self.args = (message,)


class HelpRequested(Exception):
    """``--help`` was given; carries the page."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a verb's Args, as the command line sees it.

    Attributes:
        convert: turns one word into a value; None when the field can only be set in a TOML file.
        many: takes any number of words (a tuple).
        takes: what it takes, in words, for errors: ``"a number"``.
        metavar: the same for help: ``"NUMBER"``.
        table: the field and the key of the table that holds it, for an option of ``NESTED``.
    """

    name: str
    help: str
    hint: Any
    default: Any
    positional: bool
    convert: Callable[[str], Any] | None
    many: bool
    takes: str
    metavar: str
    table: tuple[str, str] | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.rstrip("_").replace("_", "-")

    @property
    def switch(self) -> bool:
        return _without_none(self.hint) is bool

    @property
    def can_be_none(self) -> bool:
        """Whether the word ``none`` can switch it off."""
        return self.default not in (None, dataclasses.MISSING) and _without_none(self.hint) != self.hint

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def shown(self) -> str:
        """How errors and help call it."""
        return self.name.upper() if self.positional else self.flag


def parse(cls: type[T], argv: Sequence[str], *, prog: str) -> T:
    """The verb's arguments from the words after its name.

    Raises:
        UsageError: an unknown option (with the nearest known), a missing or bad value.
        UserError: the ``--config`` file cannot be read or has an unknown key.
        HelpRequested: the words hold ``-h`` or ``--help``.
    """
    options = options_of(cls)
    by_flag = _flags(options)
    words = list(argv[: argv.index("--")]) if "--" in argv else list(argv)
    if "-h" in words or "--help" in words:
        raise HelpRequested(help_page(cls, prog))
    for word in words:
        flag = word.split("=", 1)[0]
        if flag not in by_flag and _looks_like_option(flag):
            near = nearest(flag, [*by_flag, "--help"])
            hint = f"did you mean {near}?" if near else f"{prog} --help lists what there is"
            raise UsageError(f"{prog}: unknown option {flag}; {hint}")
    parsed = vars(_parser(options, prog).parse_intermixed_args(list(argv)))
    given = {name: value for name, value in parsed.items() if value is not None}
    values = dict(given)
    if "config" in {option.name for option in options} and given.get("config") is not None:
        values = load_toml_over(cls, Path(given["config"]), given)
    values = _into_tables(options, {name: None if value is NONE else value for name, value in values.items()})
    missing = [option.shown for option in options if option.required and option.name not in values]
    if missing:
        raise UsageError(f"{prog}: {' and '.join(missing)} missing; usage: {usage(cls, prog)}")
    try:
        return cls(**values)
    except ValueError as error:  # the class's own validation
        raise UsageError(f"{prog}: {error}") from error


def _into_tables(options: Sequence[Option], values: dict[str, Any]) -> dict[str, Any]:
    """The values with those of nested options moved into their tables."""
    moved = dict(values)
    for option in options:
        if option.table is not None and option.name in moved:
            field, key = option.table
            tables = {name: dict(table) for name, table in moved.get(field, {}).items()}
            tables.setdefault(key, {})[option.name.removeprefix(f"{key}_")] = moved.pop(option.name)
            moved[field] = tables
    return moved


def load_toml_over(cls: type, path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Field values for `cls`: those of the TOML file `path`, overridden by `given`.

    Raises:
        UserError: no such file, not TOML, an unknown key (with the nearest valid one) or a value of the wrong type.
    """
    from underhood.core.config import from_json
    from underhood.core.toml import read_toml

    table = read_toml(path)
    options = {option.name: option for option in options_of(cls) if option.name != "config"}
    values: dict[str, Any] = {}
    for key, value in table.items():
        option = options.get(key.replace("-", "_")) or options.get(f"{key}_")
        if option is None:
            near = nearest(key, options)
            fix = f"Did you mean {near}?" if near else f"Valid keys: {', '.join(options)}"
            raise UserError(f"unknown key {key!r} in {path}", fix=fix)
        if option.convert is None and not option.switch:
            recipe = dataclasses.make_dataclass("Recipe", [(option.name, option.hint)])
            values[option.name] = getattr(from_json(recipe, {option.name: value}, where=str(path)), option.name)
        else:
            values[option.name] = _toml_value(option, value, f"{key} in {path}")
    return values | given


def options_of(cls: type) -> list[Option]:
    """The fields of an Args class in order, positionals first, those of nested tables last."""
    options = _own_options(cls)
    for field, tables in getattr(cls, "NESTED", {}).items():
        for key, table in tables().items():
            options += [
                dataclasses.replace(option, name=f"{key}_{option.name}", table=(field, key))
                for option in _own_options(table)
            ]
    return sorted(options, key=lambda option: not option.positional)


def _own_options(cls: type) -> list[Option]:
    hints, docs = typing.get_type_hints(cls, include_extras=True), field_docs(cls)
    options = []
    for field in dataclasses.fields(cast(Any, cls)):
        hint, positional = hints[field.name], False
        if get_origin(hint) is Annotated:
            positional = _PositionalMark in hint.__metadata__
            hint = get_args(hint)[0]
        inner, many = _without_none(hint), False
        if get_origin(inner) is tuple:
            inner, many = get_args(inner)[0], True
        convert, takes, metavar = _reader(inner)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        options.append(
            Option(field.name, docs.get(field.name, ""), hint, default, positional, convert, many, takes, metavar),
        )
    return options


def usage(cls: type, prog: str) -> str:
    """The line that shows how the verb is called."""
    words = [prog]
    for option in options_of(cls):
        if option.positional:
            word = option.shown + (" …" if option.many else "")
            words.append(word if option.required else f"[{word}]")
        elif option.required:
            words.append(f"{option.flag} {option.metavar}")
    return " ".join([*words, "[options]"])


def help_page(cls: type, prog: str) -> str:
    """The help of one verb in at most 80 columns of plain text."""
    blocks = [textwrap.fill(f"usage: {usage(cls, prog)}", WIDTH, subsequent_indent="  ")]
    blocks += [text if text.startswith(" ") else textwrap.fill(text, WIDTH) for text in description(cls)]
    options = [option for option in options_of(cls) if option.convert or option.switch]
    first = getattr(cls, "FIRST", None)
    chosen = [option for name in first for option in options if option.name == name] if first else options
    rows = [(_left(option), _right(option)) for option in chosen] + [("-h, --help", "Shows this page.")]
    rest = [(_left(option), _right(option)) for option in options if option not in chosen]
    left = min(max(len(name) for name, _ in rows + rest), 24) + 4
    blocks.append(_columns(rows, left))
    if rest:
        blocks += [f"{cls.REST}:", _columns(rest, left)]  # type: ignore[attr-defined]
    return "\n\n".join(blocks)


def _columns(rows: Sequence[tuple[str, str]], left: int) -> str:
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, WIDTH - left) or [""]
        if len(name) + 4 > left:
            lines.append("  " + name)
        else:
            lines.append(("  " + name).ljust(left) + wrapped.pop(0))
        lines += [" " * left + line for line in wrapped]
    return "\n".join(line.rstrip() for line in lines)


def _left(option: Option) -> str:
    if option.switch:
        return "--no-" + option.flag[2:] if option.default is True else option.flag
    metavar = "NAME" if _many_choices(option) else option.metavar + ("|none" if option.can_be_none else "")
    return option.shown if option.positional else f"{option.flag} {metavar}{' …' if option.many else ''}"


def _right(option: Option) -> str:
    default, help_ = option.default, option.help
    if _many_choices(option):
        help_ = f"{help_} NAME: {option.metavar.replace('|', ', ')}.".strip()
    if default in (None, dataclasses.MISSING, ()) or option.switch:
        return help_
    shown = " ".join(map(str, default)) if option.many else (f"{default:g}" if type(default) is float else str(default))
    return f"{help_} [{shown}]".strip()


def _many_choices(option: Option) -> bool:
    """Whether the choices are too many to be shown beside the option's name."""
    return len(option.metavar) > 50


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        rest = [member for member in get_args(hint) if member is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


def _reader(hint: Any) -> tuple[Callable[[str], Any] | None, str, str]:
    """The converter from a command-line word to the type, its description, and its metavar."""
    if hint is bool:
        return None, "true or false", ""
    if hint is int:
        return _whole, "a whole number", "N"
    if hint is float:
        return float, "a number", "NUMBER"
    if hint is str:
        return str, "a text", "TEXT"
    if hint is Path:
        return lambda word: Path(word).expanduser(), "a path", "PATH"
    if get_origin(hint) is Literal:
        choices = {str(choice): choice for choice in get_args(hint)}
        return choices.__getitem__, " or ".join(choices), "|".join(choices)
    return None, "a table", ""


def _whole(word: str) -> int:
    """An int; ``1e6`` and ``10_000`` are welcome, ``1.5`` is not."""
    try:
        return int(word)
    except ValueError:
        number = float(word)
        if not number.is_integer():
            raise ValueError(word) from None
        return int(number)


def _toml_value(option: Option, value: Any, where: str) -> Any:
    if value == "none" and option.can_be_none:
        return None
    if option.switch:
        if isinstance(value, bool):
            return value
    elif option.many:
        if isinstance(value, list):
            return tuple(_toml_value(dataclasses.replace(option, many=False), item, where) for item in value)
    elif not isinstance(value, (bool, list, dict)) and isinstance(value, str) == (option.takes not in _NUMERIC):
        try:
            assert option.convert is not None
            return option.convert(str(value))
        except (ValueError, KeyError):
            pass
    expected = f"a list of values, each {option.takes}" if option.many else option.takes
    raise UserError(f"{where} has the wrong value", expected=expected, got=repr(value))


_NUMERIC = ("a number", "a whole number")


def _flags(options: Sequence[Option]) -> dict[str, Option]:
    flags = {option.flag: option for option in options if not option.positional and (option.convert or option.switch)}
    return flags | {"--no-" + flag[2:]: option for flag, option in flags.items() if option.switch}


def _looks_like_option(word: str) -> bool:
    """As argparse sees it: a dash, then no number and no space (a prompt may begin with a dash)."""
    if len(word) < 2 or not word.startswith("-") or " " in word:
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        name, _, rest = message.removeprefix("argument ").partition(": ")
        if message.startswith("argument ") and rest.startswith("expected"):
            message = f"{name} needs a value"
        elif message.startswith("argument ") and rest.startswith("ignored explicit argument"):
            message = f"{name.split('/')[0]} takes no value"
        elif message.startswith("unrecognized arguments: "):
            message = f"unexpected argument {message.removeprefix('unrecognized arguments: ').split()[0]!r}"
        elif message.startswith("argument "):
            message = f"{name} {rest}"
        raise UsageError(f"{self.prog}: {message} ({self.prog} --help)")


def _parser(options: Sequence[Option], prog: str) -> argparse.ArgumentParser:
    """A parser that returns only what was given (None: an absent positional); defaults stay with the dataclass."""
    parser = _Parser(prog=prog, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for option in options:
        many: dict[str, Any] = {"action": _Tuple, "nargs": "*"} if option.many else {}
        if option.switch:
            parser.add_argument(option.flag, dest=option.name, action="store_true")
            parser.add_argument("--no-" + option.flag[2:], dest=option.name, action="store_false")
        elif option.convert is not None and option.positional:
            many = many or {"nargs": "?"}
            parser.add_argument(option.name, metavar=option.shown, type=_checked(option), default=None, **many)
        elif option.convert is not None:
            parser.add_argument(option.flag, dest=option.name, type=_checked(option), **many)
    return parser


class _Tuple(argparse.Action):
    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        if values or option_string:  # an absent positional arrives here as an empty list
            setattr(namespace, self.dest, tuple(values))


def _checked(option: Option) -> Callable[[str], Any]:
    def read(word: str) -> Any:
        try:
            assert option.convert is not None
            return NONE if word == "none" and option.can_be_none else option.convert(word)
        except (ValueError, KeyError):
            near = nearest(word, option.metavar.split("|")) if "|" in option.metavar else None
            hint = f"; did you mean {near}?" if near else ""
            raise argparse.ArgumentTypeError(f"takes {option.takes}, got {word!r}{hint}") from None

    return read
