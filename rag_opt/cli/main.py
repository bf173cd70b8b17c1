"""`rag-opt <command> …`: every command under one name, each as `python -m rag_opt.<command>` runs it."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from runpy import run_module

from rag_opt.console.terminal import command, sanitize_line, sanitize_text
from rag_opt.errors import ConfigError, format_hint

COMMANDS = {
    "study": "run or resume a study",
    "trial": "measure one configuration, such as a study's",
    "ask": "ask one configuration one question",
    "report": "a study's report anew",
    "compare": "several studies compared",
    "dashboard": "a study, its report and MLflow in the browser",
    "replay": "samplers compared on what studies have measured",
    "promote": "what a study recommends as a registered model",
    "serve": "a registered model, or a study, as a service",
    "update": "a registered model over changed documents",
    "watch": "what a served model did, and whether that has changed",
    "retune": "a served model tuned again on what people have asked since",
    "gate": "for pull requests: whether a change makes answers worse",
    "export": "what a study recommends as Haystack pipelines",
    "backup": "a copy of a study, also while it runs",
    "documents": "what a folder of documents gives",
    "judge": "how far a judge can be trusted",
    "questions": "questions about documents, and what a set is worth",
    "llm": "a language model of this machine as an OpenAI-compatible endpoint",
    "store": "what is kept for later studies",
    "completion": "what makes bash, zsh or fish complete all this",
}
MODULES = {"compare": "rag_opt.report", "completion": "rag_opt.cli.completion"}
"""Where a command has another name than its module."""

ABOUT = ("--help", "-h", "--version")
HELP = "usage: rag-opt <command> …     rag-opt <command> --help tells what it takes\n\n{}"
OLD = "rag-opt-"
"""How the programs were named when each command was one, such as rag-opt-study."""


def main() -> None:
    """The command line."""
    with command():
        name, *words = _get_words()
        if name in ABOUT:
            print(sanitize_text(version("rag-opt-studies") if name == "--version" else _format_help()))
            return
        if name not in COMMANDS:
            raise ConfigError(f"rag-opt {name}: there is no such command; {format_hint(name, COMMANDS)}")
    # Outside of `command`: each module has one of its own, and reads sys.argv by itself.
    sys.argv[1:] = words
    # As `python -m` does it, the processes that it starts included.
    run_module(MODULES.get(name, f"rag_opt.{name}"), run_name="__main__", alter_sys=True)


def _get_words() -> list[str]:
    """The command and its words; raises ConfigError where there is none."""
    program = Path(sys.argv[0]).name
    if program.startswith(OLD):
        # On Windows a script's name ends in .exe.
        name = program.removeprefix(OLD).removesuffix(".exe")
        print(
            sanitize_line(f"{program}: this name goes with the next minor version; write rag-opt {name}"),
            file=sys.stderr,
        )
        return [name, *sys.argv[1:]]
    if len(sys.argv) < 2:
        raise ConfigError("rag-opt: name a command, such as rag-opt study; rag-opt --help lists them")
    return sys.argv[1:]


def _format_help() -> str:
    return HELP.format("\n".join(f"  {name:<11} {about}" for name, about in COMMANDS.items()))


if __name__ == "__main__":
    main()
