"""What is typed is what is meant: texts reach the configuration as they were typed, whatever Hydra makes of them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.cli import shell
from rag_opt.config import compose
from rag_opt.config.quoting import quote_arguments, quote_text, unquote_argument
from rag_opt.console import exit_status

QUESTIONS = [
    "What's sold, and where?",
    "In Northford, what is sold?",
    "Is it (really) known?",
    "Wo liegt Würzburg?",
    "苹果主要在哪里出产？",
    "42",
    "null",
    "true",
    "3.10",
    "a=b",
    "{a: b}",
    "[1, 2",
    "# no comment",
    'She said "no"',
    "'quoted'",
    '"quoted"',
    "${oc.env:HOME}",
    "\\${seed}",
    "C:\\temp\\",
    "two\nlines",
    "  blanks  ",
    "tag(a, b)",
    "glob(*)",
    "~x",
    "100 % sure; $HOME",
    "\\'",
]


@pytest.mark.parametrize("multirun", [False, True])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_taken_as_it_is(question: str, multirun: bool) -> None:
    words = quote_arguments([f"question={question}", "seed=1"], multirun=multirun)
    assert compose.compose_config(words).question == question


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_text_survives_quoting(text: str) -> None:
    assert compose.compose_config([f"name={quote_text(text)}"]).name == text


@pytest.mark.parametrize(
    "name", ["2024_11_26", "3.10", "3.1", "1e5", "null", "true", "007", "inf", "0x1F", "a,b", "k=v"]
)
def test_a_name_is_what_was_typed(name: str) -> None:
    (word,) = quote_arguments([f"name={name}"])
    assert compose.compose_config([word]).name == name
    assert unquote_argument(word) == f"name={name}"
    assert quote_arguments([f"name={quote_text(name)}"]) == [f"name={quote_text(name)}"]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("dataset.documents", "Jürgen/d.jsonl"),
        ("dataset.questions", "v2 (final), really/q.jsonl"),
        ("studies_dir", "2024_11_26"),
        ("store.path", "50 % off"),
        ("llm.model", "4"),
    ],
)
def test_paths_and_models_are_what_was_typed(key: str, path: str) -> None:
    found = compose.compose_config(["dataset=jsonl", *quote_arguments([f"{key}={path}"])])
    for part in key.split("."):
        found = found[part]
    assert found == path


def test_what_hydra_reads_rightly_stays_as_it_is() -> None:
    words = [
        "name=mine",
        "name='a/sampler=tpe,seed=0'",
        "dataset.path=null",
        "studies_dir=${oc.env:HOME}/x",
        "llm.model='x,y'",
        "n_trials=5",
        "retriever=bm25",
        "+experiment=msmarco",
        "objective.metrics=[R@5,F1]",
        "~seeds",
        "--cfg",
    ]
    assert quote_arguments(words) == words


def test_a_multirun_still_sweeps_over_names_and_paths() -> None:
    words = quote_arguments(["name=a,2024_11_26,3.10", "dataset.path=x/a,Jürgen/b", "seed=0,1"], multirun=True)
    assert words == ["name=a,'2024_11_26','3.10'", "dataset.path=x/a,'Jürgen/b'", "seed=0,1"]


@pytest.mark.parametrize("folder", ["Jürgen", "v2 (final), really", "it's", "50 % $x", "a=b [c] {d}", "日本"])
def test_a_configuration_folder_may_have_any_name(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder / "my_conf"
    (place / "pruner").mkdir(parents=True)
    (place / "pruner" / "own.yaml").write_text("_target_: optuna.pruners.NopPruner\n")
    found = compose.compose_config([shell.format_search_path([str(place)]), "pruner=own"])
    assert found.pruner == {"_target_": "optuna.pruners.NopPruner"}
    (typed,) = quote_arguments([f"hydra.searchpath=[file://{place}]"])
    assert compose.compose_config([typed, "pruner=own"]).pruner == found.pruner


def test_letters_that_an_encoding_lacks_are_escaped(monkeypatch) -> None:
    written = {"stdout": io.BytesIO(), "stderr": io.BytesIO()}
    for name, content in written.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(content, "cp1252"))
    exit_status.escape_unencodable()
    for name, content in written.items():
        stream = getattr(sys, name)
        stream.write("Würzburg 苹果")
        stream.flush()
        assert content.getvalue() == "Würzburg \\u82f9\\u679c".encode("cp1252")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--n-trials=5"], "--n-trials=5: there is no such option; write n_trials=5"),
        (["seed=1", "--n-trials", "5"], "--n-trials: there is no such option; write n_trials=5"),
        (["--dataset.path=x"], "--dataset.path=x: there is no such option; write dataset.path=x"),
    ],
)
def test_a_setting_with_dashes_is_told_how_to_write_it(monkeypatch, capsys, line: list[str], message: str) -> None:
    monkeypatch.setattr(sys, "argv", ["study", *line])
    with pytest.raises(SystemExit) as caught:
        shell.run_hydra(lambda: None)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_options_may_stand_between_settings(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "seed=1", "-m", "name=3.10,b", "sampler=gp,tpe"])
    shell.run_hydra(lambda: None)
    common, *rest = sys.argv[1:]
    assert common == "hydra.job.config.override_dirname.exclude_keys=[seed]"
    assert rest == ["seed=1", "name='3.10',b", "sampler=gp,tpe", "-m"]
    # As Hydra will read it.
    assert get_args_parser().parse_args().overrides == [common, *rest[:-1]]
