"""Command lines: what is wrong is said in one message, without a traceback."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from rag_opt.config.compose import compose_config, parse_overrides
from rag_opt.config.experiments import GIVEN, expand_best
from rag_opt.config.own_pipelines import mark_free, unmark_free
from rag_opt.config.quoting import format_path_list, quote_arguments
from rag_opt.config.schema import compose_command_line
from rag_opt.config.settings import parse_settings
from rag_opt.config.stages import is_whole
from rag_opt.console.exit_status import ReaderGone, get_exit_status, handle_broken_pipe
from rag_opt.console.terminal import REFUSED, print_error, sanitize_text
from rag_opt.errors import ConfigError, RagOptError

SPACE = "space"
"""What `--cfg` shows beside Hydra's job, hydra and all."""

INTERNAL = re.compile(r"(?<=[ ,])_\w+(, |$)", re.MULTILINE)


class Refused(SystemExit):
    """Ends a Hydra job with a message; Hydra lets it pass where it would frame an ordinary exception."""

    def __init__(self, error: RagOptError) -> None:
        super().__init__(REFUSED)
        self.error = error


def run_hydra(task: Callable[[], Any]) -> None:
    """Check the command line, run the Hydra main function, and end with its status.

    0, 2 (refused), 130, 143 or 129 (stopped by Ctrl-C, SIGTERM or SIGHUP), 141 (nobody reads what it says).
    """
    with handle_broken_pipe():
        _run(task)


def _run(task: Callable[[], Any]) -> None:
    try:
        proposing = _take_proposal(sys.argv)
        args = _parse_arguments()
        _check_options(args)
        if not (args.help or args.hydra_help or args.shell_completion):
            extra = [format_search_path([args.config_dir])] if args.config_dir else []
            words = expand_best([*args.overrides, *extra])
            # Hydra parses sys.argv by itself, so what best= stands for is put there.
            if any(word.startswith(GIVEN) for word in args.overrides):
                sys.argv[1:] = [*words, *(word for word in sys.argv[1:] if word not in args.overrides)]
            if proposing:
                print(sanitize_text(_propose_space(words)), end="")
                return
            parse_settings(compose_command_line(words))
            if args.multirun:
                sys.argv.insert(1, _exclude_common_keys(words))
        if args.help:
            _print_help(task)
        else:
            task()
    except Refused as refused:
        sys.exit(_report_error(refused.error))
    except RagOptError as error:
        sys.exit(_report_error(error))
    except ReaderGone:
        # A KeyboardInterrupt as well, but one that `handle_broken_pipe` ends without a word.
        raise
    except KeyboardInterrupt as stop:
        # The terminal may be gone.
        with suppress(OSError):
            print("stopped; nothing is lost: the same command goes on from here", file=sys.stderr)
        sys.exit(get_exit_status(stop))


def _take_proposal(line: list[str]) -> bool:
    """Whether `--cfg space` or `--cfg=space` is in a command line; it is taken out, since Hydra does not know it."""
    if (joined := f"--cfg={SPACE}") in line:
        line.remove(joined)
        return True
    for place, (option, value) in enumerate(pairwise(line)):
        if option in ("--cfg", "-c") and value == SPACE:
            del line[place : place + 2]
            return True
    return False


def _propose_space(words: list[str]) -> str:
    """The space that is proposed for something of one's own; that of the configuration where it has one."""
    from rag_opt.config.own_space import propose_space

    config = compose_config(words)
    if not is_whole(config):
        return OmegaConf.to_yaml(config.search_space)
    return propose_space(config)


def _parse_arguments() -> Any:
    """The parsed command line; in sys.argv, too, what is text is then written as Hydra reads it."""
    parser = get_args_parser()
    known, rest = parser.parse_known_args()
    words = [word for word in rest if not word.startswith("-")]
    if unknown := [word for word in rest if word not in words]:
        raise ConfigError(_format_unknown(unknown[0], sys.argv))
    options = [word for word in sys.argv[1:] if word not in {*known.overrides, *words}]
    # Hydra wants them side by side.
    quoted = quote_arguments([*known.overrides, *words], multirun=known.multirun)
    sys.argv[1:] = [*map(mark_free, quoted), *options]
    return parser.parse_args()


def _format_unknown(option: str, line: list[str]) -> str:
    """What to write in place of an option that there is not, such as n_trials=5 for --n-trials=5."""
    name, equals, value = option.lstrip("-").partition("=")
    if not equals:
        after = line[line.index(option) + 1 :][:1]
        value = after[0] if after and "=" not in after[0] and not after[0].startswith("-") else "…"
    wanted = f"write {name.replace('-', '_')}={value}" if option.startswith("--") else "--help lists them"
    return f"{option}: there is no such option; {wanted}"


def _print_help(task: Callable[[], Any]) -> None:
    """Hydra's help without the files that only other files name, such as _with_web."""
    told = io.StringIO()
    try:
        with redirect_stdout(told):
            task()
    finally:
        print(sanitize_text(INTERNAL.sub("", told.getvalue())), end="")


def format_search_path(folders: Iterable[str]) -> str:
    """The override that has files found in these folders."""
    return f"hydra.searchpath={format_path_list([f'file://{folder}' for folder in folders])}"


def _check_options(args: Any) -> None:
    """Raise ConfigError at an option of Hydra's that leaves the checked configuration, or opens a pickle."""
    for option in ("config_path", "config_name", "experimental_rerun"):
        if getattr(args, option, None) is not None:
            raise ConfigError(
                f"--{option.replace('_', '-')}={getattr(args, option)}: it is not taken here; files of your own go "
                "into a folder: --config-dir my_conf <group>=<file>"
            )
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        raise ConfigError(
            f"--config-dir={args.config_dir}: there is no such folder (looked for {Path(args.config_dir).absolute()})"
        )


def read_words(config: Any) -> list[str]:
    """The words of a Hydra job, and the override that finds the user's own files again."""
    return [*find_search_path(config), *map(unmark_free, config.overrides.task)]


def find_search_path(config: Any) -> list[str]:
    """The override that finds the user's own configuration folder (--config-dir) again; [] when there is none."""
    given = [word for word in config.overrides.hydra if word.startswith("hydra.searchpath=")]
    # Hydra calls the source that --config-dir names "command-line".
    own = [source.path for source in config.runtime.config_sources if source.provider == "command-line"]
    return given or [format_search_path(own)] * bool(own)


def _exclude_common_keys(overrides: list[str]) -> str:
    """The Hydra override that leaves what all jobs of a multirun have in common out of their names."""
    common = {override.key_or_group for override in parse_overrides(overrides) if not override.is_sweep_override()}
    return f"hydra.job.config.override_dirname.exclude_keys=[{','.join(sorted(common))}]"


def _report_error(error: RagOptError) -> int:
    print_error(error)
    return REFUSED
