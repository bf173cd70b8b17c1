"""Small files that stand for more than any memory holds: each is refused at once, in a message that names it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rag_opt.config import yaml_files
from rag_opt.config.compose import compose_config, load_prompt
from rag_opt.config.schema import check_shape, compose_command_line
from rag_opt.errors import ConfigError
from rag_opt.tracking.params import read_flat_file
from tests.faults.conftest import Figure

QUICK = 10.0
"""Seconds of computing in which a refusal must come; what is not refused takes years."""


def chain(first: str, link: str, length: int = 12) -> str:
    return "\n".join([first, *(link.format(this=place, before=place - 1) for place in range(1, length)), ""])


ALIASES = chain(
    "a0: &a0 [lol, lol]", "a{this}: &a{this} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}]"
)
FILES = {
    "lists of aliases": (ALIASES, "more than 50,000 values"),
    "mappings of aliases": (
        chain("a0: &a0 {x: lol}", "a{this}: &a{this} {{a: *a{before}, b: *a{before}, c: *a{before}}}", 30),
        "more than 50,000 values",
    ),
    "merged mappings": (
        chain("a0: &a0 {x: lol}", "a{this}: &a{this} {{<<: [*a{before}, *a{before}, *a{before}, *a{before}]}}", 30),
        "more than 50,000 values",
    ),
    "one long text, often": (f"a: &a {'lol' * 100_000}\nb: [{', '.join(['*a'] * 5_000)}]\n", "more than 50,000 values"),
    "many values": (f"a: [{'1, ' * 60_000}1]\n", "more than 50,000 values"),
    "itself": ("a: &a [*a]\n", "more than 50,000 values"),
    "itself, from within": ("a: &a {b: {c: *a}}\n", "more than 50,000 values"),
    "brackets": (f"a: {'[' * 100_000}\n", "more than 100 levels"),
    "closed brackets": (f"a: {'[' * 500}{']' * 500}\n", "more than 100 levels"),
    "braces": (f"a: {'{a: ' * 150}1{'}' * 150}\n", "more than 100 levels"),
    "dashes": (f"a:\n  {'- ' * 5_000}1\n", "more than 100 levels"),
    "a long line of aliases": (chain("a0: &a0 [1]", "a{this}: &a{this} [*a{before}]", 200), "more than 100 levels"),
    "texts of texts": (chain("a0: lol", "a{this}: " + "${{reranker.a{before}}}" * 9, 30), "more than 1,000 interpol"),
    "keys of keys": (
        chain("a0: {x: 1}", "a{this}: {{x: '${{reranker.a{before}}}', y: '${{reranker.a{before}}}'}}", 30),
        "more than 1,000 interpol",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_configuration_that_stands_for_too_much_is_refused(tmp_path: Path, name: str) -> None:
    text, message = FILES[name]
    (tmp_path / "reranker").mkdir()
    (tmp_path / "reranker" / "bomb.yaml").write_text(f"{text}components: {{}}\n")
    start = time.process_time()
    with pytest.raises(ConfigError, match=message) as caught:
        check_shape(compose_config([f"hydra.searchpath=[file://{tmp_path}]", "reranker=bomb"]))
    assert time.process_time() - start < QUICK
    assert "bomb.yaml" in str(caught.value) or "reranker." in str(caught.value)


@pytest.mark.parametrize("value", ["[" * 20_000, "[" * 500 + "]" * 500, "{a:" * 500 + "1" + "}" * 500])
def test_a_word_of_the_command_line_that_is_too_deep_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="is not key=value as Hydra reads it") as caught:
        compose_command_line([f"seeds={value}"])
    assert len(str(caught.value)) < 1_000


def test_a_prompt_and_a_trials_configuration_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompt").mkdir()
    bomb = tmp_path / "prompt" / "bomb.yaml"
    bomb.write_text(ALIASES)
    monkeypatch.setattr("rag_opt.config.compose.FOLDER", tmp_path)
    with pytest.raises(ConfigError, match=r"bomb\.yaml: .*more than 50,000"):
        load_prompt("bomb")
    with pytest.raises(ConfigError, match=r"bomb\.yaml: .*more than 50,000"):
        read_flat_file(bomb)


def test_aliases_as_people_use_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("base: &base {top_k: 5, b: [1, 2]}\nmine: {<<: *base, k1: 1.2}\nlist: [*base, *base]\n")
    base = {"top_k": 5, "b": [1, 2]}
    assert yaml_files.read_yaml(path) == {"base": base, "mine": {**base, "k1": 1.2}, "list": [base, base]}


def test_what_is_no_yaml_is_said_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    for text in (b"a: [1", b"a: \xff", b"a: *b", b"\0"):
        path.write_bytes(text)
        with pytest.raises(ConfigError, match=r"own\.yaml: can't be read as YAML"):
            yaml_files.read_yaml(path)


def test_there_are_enough_bombs(figure: Figure) -> None:
    figure(
        "bombs",
        f"{len(FILES)} files that stand for more than memory holds: refused by name within {QUICK:.0f} s of computing",
    )
