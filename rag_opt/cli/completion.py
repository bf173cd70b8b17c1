"""`rag-opt completion bash`: the lines that make bash, zsh or fish complete commands, options, overrides and studies.

The stock ones (Hydra's, Click's, Typer's) take an override apart at its equals sign, and put a blank behind it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import CommandLine, command_line
from rag_opt.cli.main import ABOUT, COMMANDS
from rag_opt.console.terminal import sanitize_text
from rag_opt.errors import ConfigError, RagOptError, format_hint

if TYPE_CHECKING:
    from omegaconf import DictConfig

SHELLS = ("bash", "zsh", "fish")
STUDIES = "studies"
LEFT = ("report.html", "best.yaml", "study.db")
"""What a folder holds that is a study's."""

HYDRA = ("study", "trial", "ask")
REFUSED = {"--config-path", "--config-name", "--experimental-rerun", "--shell-completion"}
"""Options of Hydra's that have no use here."""

PLAIN = re.compile(r"[\w@%+=:,./-]+")
"""Words that a shell reads as they are: no folder's name runs anything."""


def complete_line(line: str) -> list[str]:
    """The words that may stand where the last one of this command line begins; [] where there are none to tell.

    The line ends where the cursor is: "rag-opt study retr" has retriever= and retriever., sorted.
    """
    try:
        words = shlex.split(line)[1:]
    except ValueError:
        # A quote that is still open.
        return []
    word = words.pop() if words and not line[-1:].isspace() else ""
    found = _complete_command(words[0], words[1:], word) if words else [*COMMANDS, *ABOUT]
    kept = {each for each in found if each.startswith(word) and PLAIN.fullmatch(each)}
    return sorted(each for each in kept if each[0] != "-" or word.startswith("-"))


def _complete_command(name: str, words: Sequence[str], word: str) -> Iterable[str]:
    if name in HYDRA:
        return complete_overrides(words, word)
    if name not in COMMANDS:
        return []
    module = "report" if name == "compare" else name
    line: CommandLine = import_module(f"rag_opt.cli.{module}").main
    if word.startswith("-"):
        return ["--help", *(option for param in line.build_parser().params for option in param.opts)]
    if name in ("export", "promote") and words:
        return complete_overrides([f"best={words[0]}"], word)
    return [*line.words, *(find_studies(word) if line.studies else [])]


def find_studies(word: str) -> Iterator[str]:
    """The studies in the folder that the word names so far, and in folders of it: those of a multirun."""
    root = Path(word.rpartition("/")[0] or STUDIES)
    for pattern in ("*/", "*/*/"):
        for folder in root.glob(pattern):
            if any((folder / name).is_file() for name in LEFT):
                yield folder.as_posix()


def complete_overrides(words: Sequence[str], word: str) -> list[str]:
    """What Hydra's commands take behind these words: options, groups, choices, keys and their present values."""
    from hydra._internal.utils import get_args_parser

    from rag_opt.cli.shell import format_search_path

    parser = get_args_parser()
    if word.startswith("-"):
        return sorted({option for each in parser._actions for option in each.option_strings} - REFUSED)
    # An option that still lacks its value ends the parser.
    with suppress(SystemExit):
        args = parser.parse_args(words)
        own = [format_search_path([args.config_dir])] if args.config_dir else []
        return _match_overrides([*args.overrides, *own], word)
    return []


def _match_overrides(words: Sequence[str], word: str) -> list[str]:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType
    from hydra.plugins.completion_plugin import CompletionPlugin

    from rag_opt.config.compose import NAME, initialize_hydra
    from rag_opt.config.quoting import SEARCH_PATH

    key, equals, value = word.partition("=")
    if key == "best":
        return [f"best={study}" for study in find_studies(value)]
    with initialize_hydra():
        path = [each for each in words if each.startswith(SEARCH_PATH)]
        loader = GlobalHydra.instance().config_loader()
        if equals and (names := loader.get_group_options(key.lstrip("+"), ObjectType.CONFIG, NAME, path)):
            # A multirun takes several.
            before = value[: value.rfind(",") + 1]
            return [f"{key}={before}{name}" for name in names if not name.startswith("_")]
        config, groups = _compose_words(words, path)
        keys = [each for each in CompletionPlugin._get_matches(config, word) if not each.endswith(".components.")]
    return [*keys, *(f"{group}=" for group in groups), "+experiment=", "best="]


def _compose_words(words: Sequence[str], path: Sequence[str]) -> tuple[DictConfig, Iterable[str]]:
    """The configuration of these words, or of the defaults where they compose to none, and the groups it chooses in."""
    from rag_opt.config.compose import compose_config, get_choices
    from rag_opt.config.experiments import expand_best
    from rag_opt.config.quoting import quote_arguments

    try:
        whole = expand_best(quote_arguments(words))
        return compose_config(whole), get_choices(whole)
    except RagOptError:
        return compose_config(path), get_choices(path)


@command_line("cli.completion", __doc__, SHELLS, studies=False)
def main(
    shell: Annotated[str, Argument(help="bash, zsh or fish")] = "",
    offer: Annotated[str | None, Option(hidden=True)] = None,
) -> None:
    """The command line."""
    if offer is not None:
        print(sanitize_text("\n".join(complete_line(offer))))
        return
    if shell not in SHELLS:
        given = f"rag-opt completion {shell}".strip()
        raise ConfigError(f"{given}: the name of your shell is expected; {format_hint(shell, SHELLS)}")
    print(sanitize_text(Path(__file__).with_name(f"completion.{shell}").read_text("utf-8")), end="")


if __name__ == "__main__":
    main()
