"""Command lines that Typer reads, `rag-opt`, and the words that complete it."""

from __future__ import annotations

import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import pytest
from typer import Argument

from rag_opt.cli import main as one
from rag_opt.cli.arguments import Storage, command_line
from rag_opt.cli.completion import SHELLS, complete_line
from rag_opt.console.exit_status import HungUp, ReaderGone, Terminated
from tests.conftest import ROOT


def said(words: list[str], capsys, raising: BaseException | None = None) -> tuple[object, str, str]:
    """The exit status, None for a plain return, and what was written."""

    @command_line("thing", "What it does.")
    def main(number: Annotated[int, Argument(help="how many")], storage: Storage = None) -> None:
        print(number, storage)
        if raising:
            raise raising

    try:
        main(words)
    except SystemExit as ended:
        return ended.code, *capsys.readouterr()
    return None, *capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "error: python -m rag_opt.thing: missing argument"),
        (["x"], "error: python -m rag_opt.thing x: invalid value for"),
        (["1", "--storge", "x"], "error: python -m rag_opt.thing 1 --storge x: no such option: --storge"),
        (["1", "2"], "error: python -m rag_opt.thing 1 2: got unexpected extra argument(s) (2)"),
        (["1", "--storage"], "error: python -m rag_opt.thing 1 --storage: option '--storage' requires an argument"),
    ],
)
def test_wrong_arguments_are_refused_in_one_message(words, message, capsys) -> None:
    status, out, err = said(words, capsys)
    assert (status, out) == (2, "")
    assert err.startswith(message)
    assert err.endswith("; --help lists what is taken\n")


def test_a_password_among_wrong_arguments_is_not_told(capsys) -> None:
    _, _, err = said(["x", "--storage", "postgresql://me:canary@localhost/x"], capsys)
    assert "canary" not in err
    assert "postgresql" in err


def test_help_and_a_run(capsys) -> None:
    assert said(["1", "--storage", "s"], capsys) == (None, "1 s\n", "")
    for option in ("-h", "--help"):
        status, out, _ = said([option], capsys)
        assert status == 0
        assert "how many" in out
        assert "the storage's URL" in out


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Terminated(), HungUp()])
def test_what_stops_a_command_reaches_whoever_started_it(stop, capsys) -> None:
    with pytest.raises(type(stop)) as raised:
        said(["1"], capsys, stop)
    assert raised.value is stop


@pytest.mark.parametrize("stop", [BrokenPipeError(), ReaderGone()])
def test_a_reader_that_is_gone_has_its_status(stop, capsys) -> None:
    assert said(["1"], capsys, stop)[0] == 141


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["studdy"], "error: rag-opt studdy: there is no such command; did you mean 'study'?\n"),
        ([], "error: rag-opt: name a command, such as rag-opt study; rag-opt --help lists them\n"),
    ],
)
def test_an_unknown_command_is_refused_in_one_message(words, message, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rag-opt", *words])
    with pytest.raises(SystemExit) as ended:
        one.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == message


def test_the_program_of_an_old_name_says_the_new_one(capsys, monkeypatch) -> None:
    ran = []
    monkeypatch.setattr(one, "run_module", lambda name, **_: ran.append((name, sys.argv[1:])))
    monkeypatch.setattr(sys, "argv", ["/venv/bin/rag-opt-trial", "retriever=bm25"])
    one.main()
    assert ran == [("rag_opt.trial", ["retriever=bm25"])]
    assert "write rag-opt trial\n" in capsys.readouterr().err


def test_every_installed_program_starts_something_that_is_there() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert "rag-opt" in scripts
    for program, target in scripts.items():
        module, _, name = target.partition(":")
        assert callable(getattr(import_module(module), name)), program
        assert program == "rag-opt" or program.removeprefix("rag-opt-") in one.COMMANDS


def test_every_thin_module_is_a_command_of_it() -> None:
    thin = {path.stem for path in (ROOT / "rag_opt/commands").glob("*.py")} - {"__init__"}
    rooms = {path.parent.name for path in (ROOT / "rag_opt").glob("*/__main__.py")}
    assert thin | rooms == set(one.COMMANDS) - set(one.MODULES)


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A folder with studies, one of them of a multirun and one with a hostile name, and a choice of one's own."""
    for name, left in {"mine": "best.yaml", "many/seed=0": "study.db", "x;rm": "best.yaml", "empty": "notes"}.items():
        (tmp_path / "studies" / name).mkdir(parents=True)
        (tmp_path / "studies" / name / left).touch()
    (tmp_path / "my_conf/retriever").mkdir(parents=True)
    (tmp_path / "my_conf/retriever/ours.yaml").write_text("top_k: 3\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


STUDIES = ["studies/many/seed=0", "studies/mine"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rag-opt st", ["store", "study"]),
        ("rag-opt ", sorted(one.COMMANDS)),
        ("rag-opt --v", ["--version"]),
        ("rag-opt study retr", ["retries=", "retriever.", "retriever="]),
        ("rag-opt trial embedder=h", ["embedder=hashing", "embedder=hub"]),
        ("rag-opt study +exp", ["+experiment="]),
        ("rag-opt study +experiment=msmarco", ["+experiment=msmarco", "+experiment=msmarco_rag"]),
        ("rag-opt study -m sampler=tpe,g", ["sampler=tpe,gp", "sampler=tpe,greedy"]),
        ("rag-opt study retriever=bm25 retriever.f", []),
        ("rag-opt study retriever=hybrid retriever.f", ["retriever.fusion="]),
        ("rag-opt study retriever=nothing n_tr", ["n_trials="]),
        ("rag-opt study n_trials=", ["n_trials=25"]),
        ("rag-opt study --config-dir my_conf retriever=o", ["retriever=ours"]),
        ("rag-opt study --config-dir ", []),
        ("rag-opt study --mul", ["--multirun"]),
        ("rag-opt study retriever=_", []),
        ("rag-opt ask best=", [f"best={study}" for study in STUDIES]),
        ("rag-opt ask question='what ", []),
        ("rag-opt report ", STUDIES),
        ("rag-opt compare studies/mine studies/ma", STUDIES[:1]),
        ("rag-opt dashboard studies/many/", STUDIES[:1]),
        ("rag-opt backup studies/mine --", ["--help", "--storage"]),
        ("rag-opt export studies/mine retriever.k", ["retriever.k1="]),
        ("rag-opt replay s", ["sampler=", "seeds=", *STUDIES]),
        ("rag-opt store ", ["forget", "prune", "show", "store.path=", "studies_dir="]),
        ("rag-opt completion ", sorted(SHELLS)),
        ("rag-opt nothing ", []),
    ],
)
def test_what_completes_a_line(place, line: str, words: list[str]) -> None:
    assert complete_line(line) == words


def test_all_choices_of_a_group_but_internal_ones_complete_it() -> None:
    files = {path.stem for path in (ROOT / "conf/retriever").glob("[!_]*.yaml")}
    assert {word.removeprefix("retriever=") for word in complete_line("rag-opt study retriever=")} == files


def test_python_finds_a_module_for_every_command_and_the_package_folder_stays_short() -> None:
    missing = [name for name in one.COMMANDS if find_spec(one.MODULES.get(name, f"rag_opt.{name}")) is None]
    assert not missing
    # The thin ones lie in rag_opt/commands: beside the packages there is only what everyone needs.
    assert len(list((ROOT / "rag_opt").glob("*.py"))) <= 10
