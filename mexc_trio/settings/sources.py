"""Where settings come from: command line, environment, file and defaults, in this order.

`load` collects texts from all of them and reads every one with the reader that `Settings` declares
for it. An error therefore names the value and the place it came from in the same way wherever that
is. Nothing here connects or writes.
"""

import configparser
import os
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from mexc_trio.errors import UsageError
from mexc_trio.files import may_be_a_trap
from mexc_trio.settings import SETTINGS, SYMBOL_SETTINGS, Settings
from mexc_trio.settings.targets import ServerTarget
from mexc_trio.settings.values import file, mask, nearest
from mexc_trio.symbols import check_tables, is_pattern, parse_symbol, parse_symbols

PREFIX = "MEXC_TRIO_"
FILE = Path("settings.ini")
SECTION = "mexc-trio"
LARGEST: Final = 1 << 20
"""Letters of a settings file. What has more is another file."""

T = TypeVar("T")


@attrs.frozen
class _Given:
    """A text that some source gives for a setting."""

    text: str
    source: str  # for describe()
    where: str  # for an error

    def read(self, parse: Callable[[str], T]) -> T:
        try:
            self.text.encode()  # as a server or a proxy is sent it
            return parse(self.text)
        except UnicodeEncodeError:
            raise UsageError(f"{self.where}: write it in UTF-8, which it is not") from None
        except UsageError as error:
            raise UsageError(f"{self.where}: {error}") from None


def load(
    options: Mapping[str, str] | None = None,
    symbols: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings that hold; `options` and `symbols` are those of the command line.

    Raises UsageError, which says in one line what is wrong.
    """
    typed = {
        key: _Given(text, "command line", "--" + key.replace("_", "-"))
        for key, text in (options or {}).items()
    }
    given = {**_from_environment(os.environ if environ is None else environ), **typed}

    sections: dict[str, dict[str, _Given]] = {}
    config = given["config"].read(file) if "config" in given else _file_here()
    if config is not None:
        sections = _from_file(config)

    in_file = sections.pop(SECTION, {})
    main = in_file | given
    set_there = {*in_file, *chain.from_iterable(sections.values())}
    overridden = {key: text.source for key, text in given.items() if key in set_there}
    values: dict[str, Any] = {
        key: text.read(SETTINGS[key].metadata["parse"]) for key, text in main.items()
    }
    sources = {key: text.source for key, text in main.items()}
    values["config"] = config
    if config is not None:
        sources.setdefault("config", str(config))
    if typed_symbols := tuple(symbols):
        values["symbols"] = parse_symbols(typed_symbols)
        sources["symbols"] = "command line"
        overridden |= dict.fromkeys(in_file.keys() & {"symbols", "all"}, "command line")
        if "all" not in typed:  # as with the symbols, what is typed comes in place of the rest
            values.pop("all", None)
            sources.pop("all", None)
    words = values.pop("symbols", ())
    values["symbols"] = tuple(word for word in words if not is_pattern(word))
    values["patterns"] = tuple(word for word in words if is_pattern(word))
    store = values.get("store")
    if isinstance(store, ServerTarget) and not store.password and values.get("password"):
        values["store"] = attrs.evolve(store, password=values["password"])

    overrides = {
        symbol: {
            key: text.read(SYMBOL_SETTINGS[key])
            for key, text in section.items()
            if key not in given  # the command line and the environment come before any section
        }
        for symbol, section in sections.items()
    }
    settings = Settings(**values, overrides=overrides, sources=sources, overridden=overridden)
    used = dict.fromkeys((*settings.symbols, *overrides))
    try:
        check_tables({symbol: settings.for_symbol(symbol).table for symbol in used})
    except UsageError as error:
        raise UsageError(f"{config}: {error}; give one of them another table") from None
    return settings


def _file_here() -> Path | None:
    """Return the settings file of the current directory; None if there is none.

    It names programs that are run and files that are written, so one that anybody may have put
    there, as into /tmp, is not taken unasked.
    """
    if not os.path.exists(FILE):
        return None
    if not os.path.isfile(FILE):  # a pipe would have each command wait
        raise UsageError(f"{FILE}: is no file; take it away, or go to another directory")
    if may_be_a_trap(FILE):
        raise UsageError(
            f"{FILE} belongs to another user, in a directory to which everybody can write; go to "
            f"another directory, or give --config {FILE} if that is yours"
        )
    return FILE


# Kubernetes, and Docker's links, tell every container the address of a service called mexc-trio.
_OF_A_SERVICE: Final = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)$"
)


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    """Read the MEXC_TRIO_ variables; an empty one is as good as none."""
    variables = {PREFIX + key.upper(): key for key in SETTINGS}
    given = {}
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        if name not in variables:
            if _OF_A_SERVICE.search(name):
                continue
            raise UsageError(f"{name}: there is no such setting{nearest(name, variables)}")
        if environ[name]:
            given[variables[name]] = _Given(environ[name], "environment", name)
    return given


def _text_of(path: Path) -> str:
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise UsageError(f"{path}: has more than a million letters, and so is no settings file")
    return text


def _from_file(path: Path) -> dict[str, dict[str, _Given]]:
    """Read a settings file: its sections, by SECTION or symbol; an empty value is as good as none.

    Lines that are wrong are named by number, not quoted: one of them may be the password.
    """
    parser = configparser.ConfigParser(
        delimiters=("=",), interpolation=None, default_section="", empty_lines_in_values=False
    )
    try:
        parser.read_string(_text_of(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None
    except configparser.DuplicateSectionError as error:
        raise UsageError(f"{path}: line {error.lineno}: [{error.section}] is there twice") from None
    except configparser.DuplicateOptionError as error:
        raise UsageError(
            f"{path}: line {error.lineno}: [{error.section}] {mask(error.option)} is there twice"
        ) from None
    except configparser.MissingSectionHeaderError as error:
        raise UsageError(
            f"{path}: line {error.lineno} is above all sections; [{SECTION}] comes first"
        ) from None
    except configparser.ParsingError as error:
        line = error.errors[0][0]
        raise UsageError(f"{path}: line {line} is neither [section] nor key = value") from None

    sections: dict[str, dict[str, _Given]] = {}
    for title in parser.sections():
        where = f"{path}: [{title}]"
        try:
            section = SECTION if title == SECTION else parse_symbol(title)
        except UsageError:
            raise UsageError(
                f"{mask(where)}: there is no such section;"
                f" [{SECTION}] has the settings, and one such as [BTC_USDT] a symbol's own"
            ) from None
        if section in sections:
            raise UsageError(f"{where}: {section} is there twice")
        known = set(SETTINGS) - {"config"} if section == SECTION else set(SYMBOL_SETTINGS)
        given = sections[section] = {}
        for name, text in parser[title].items():
            option, key = mask(name), name.replace("-", "_")
            if key not in known:
                raise UsageError(f"{where} {option}: there is no such key{nearest(key, known)}")
            if key in given:
                raise UsageError(f"{where} {option}: is there twice")
            if "\n" in text and key != "symbols":
                raise UsageError(f"{where} {option}: is followed by an indented line")
            if text:
                given[key] = _Given(text, str(path), f"{where} {option}")
    return sections
