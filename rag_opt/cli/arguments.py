"""Command lines without Hydra: a function's parameters are the arguments and options, read by Typer."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag_opt.console.terminal import command
from rag_opt.errors import ConfigError

if TYPE_CHECKING:
    from typer._click import Command

Storage = Annotated[
    str | None, typer.Option(help="the storage's URL, where it is not in the folder and needs a password")
]

REFUSAL: type[Exception] = next(each for each in typer.BadParameter.__mro__ if each.__base__ is Exception)
"""What Typer raises for bad arguments: the class has another name before 0.27, which docling asks for."""


@dataclass(frozen=True)
class CommandLine:
    """A function as a command; `words` and, where `studies` is true, folders of studies complete its arguments."""

    function: Callable[..., None]
    program: str
    about: str
    words: tuple[str, ...] = ()
    studies: bool = True

    def __call__(self, arguments: Sequence[str] | None = None) -> None:
        """Run it with these words, those of the process where none are given; what is wrong is said in one message."""
        words = sys.argv[1:] if arguments is None else list(arguments)
        with command():
            try:
                parser = self.build_parser()
                # Typer's own main takes each way of stopping for Ctrl-C, and a reader that is gone for a failure.
                with parser.make_context(self.program, list(words)) as context:
                    parser.invoke(context)
            except typer.Exit as ended:
                sys.exit(ended.exit_code)
            except REFUSAL as error:
                given = shlex.join([*self.program.split(), *words])
                raise ConfigError(f"{given}: {_format_refusal(error)}; --help lists what is taken") from error

    def build_parser(self) -> Command:
        """Typer's parser of it."""
        from typer.main import get_command

        # Without Rich, which would take [key=value ...] in help for markup; completion is our own.
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(help=self.about, context_settings={"help_option_names": ["-h", "--help"]})(self.function)
        return get_command(app)


def command_line(
    name: str, about: str | None, words: Sequence[str] = (), *, studies: bool = True
) -> Callable[[Callable[..., None]], CommandLine]:
    """A decorator: the function as the command `python -m rag_opt.<name>`."""
    return lambda function: CommandLine(function, f"python -m rag_opt.{name}", about or "", tuple(words), studies)


def _format_refusal(error: Any) -> str:
    text = str(error.format_message()).strip().rstrip(".")
    return text[:1].lower() + text[1:]
