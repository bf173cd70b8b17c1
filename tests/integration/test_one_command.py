"""`rag-opt` from outside: each command as `python -m` runs it, and completed by the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rag_opt.cli.main import COMMANDS, MODULES
from tests.integration.commands import finished, trials

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with the program as pip would install it."""
    program = tmp_path_factory.mktemp("bin") / "rag-opt"
    program.write_text(f"#!{sys.executable}\nfrom rag_opt.cli.main import main\nmain()\n")
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


def ran(path: str, cwd: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        words, cwd=cwd, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_what_it_takes(path: str, tmp_path: Path, name: str) -> None:
    done = ran(path, tmp_path, "rag-opt", name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == finished(tmp_path, "--help", module=MODULES.get(name, f"rag_opt.{name}")).stdout


def test_its_own_help_names_every_command(path: str, tmp_path: Path) -> None:
    done = ran(path, tmp_path, "rag-opt", "--help")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == list(COMMANDS)


def test_a_study_by_it_is_a_study(path: str, tmp_path: Path, animals: list[str]) -> None:
    words = [*animals, "n_trials=3", "tracking=none", "threads=1"]
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    by_it, by_module = ran(path, one, "rag-opt", "study", *words), finished(other, *words)
    assert by_it.returncode == by_module.returncode == 0, by_it.stderr
    assert by_it.stderr.splitlines()[:2] == by_module.stderr.splitlines()[:2]
    left = [{each.name for each in (place / "studies/animals").iterdir()} for place in (one, other)]
    assert left[0] == left[1]
    assert trials(one, "animals") == trials(other, "animals")
    assert len(trials(one, "animals")) == 3


def test_what_is_refused_has_status_2(path: str, tmp_path: Path) -> None:
    done = ran(path, tmp_path, "rag-opt", "study", "samplr=tpe")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: 'samplr' is not a key of this configuration; did you mean 'sampler'?\n" in done.stderr


BASH = """
source <(rag-opt completion bash)
COMP_LINE=$1 COMP_POINT=${#1}
$(complete -p rag-opt | sed 's/.*-F \\([^ ]*\\) .*/\\1/') rag-opt "$2" "$3"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "behind", "words"),
    [
        ("rag-opt stu", "stu", ["study"]),
        ("rag-opt study embedder=h", "h", ["hashing", "hub"]),
        ("rag-opt study +experiment=", "", ["mlflow_docs", "msmarco", "quickstart", "squad"]),
        ("rag-opt report studies/m", "studies/m", ["studies/mine"]),
    ],
)
def test_bash_completes(path: str, tmp_path: Path, line: str, behind: str, words: list[str]) -> None:
    """`behind`: what bash itself takes for the word, since it ends words at = and replaces no more than the rest."""
    (tmp_path / "studies/mine").mkdir(parents=True)
    (tmp_path / "studies/mine/best.yaml").touch()
    done = ran(path, tmp_path, "bash", "--norc", "-c", BASH, "bash", line, behind, "")
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    assert set(words) <= set(found)
    assert not [word for word in found if "=" in word]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(path: str, tmp_path: Path) -> None:
    script = "rag-opt completion fish | source; complete -C 'rag-opt study embedder=h'"
    done = ran(path, tmp_path, "fish", "--no-config", "-c", script)
    assert done.stdout.split() == ["embedder=hashing", "embedder=hub"], done.stderr


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_reads_its_lines(path: str, tmp_path: Path) -> None:
    script = "autoload -Uz compinit; compinit -u -D; source <(rag-opt completion zsh); print $_comps[rag-opt]"
    done = ran(path, tmp_path, "zsh", "-f", "-c", script)
    assert done.stdout.strip() == "_rag_opt", done.stderr


def test_a_shell_that_is_not_known_is_refused(path: str, tmp_path: Path) -> None:
    done = ran(path, tmp_path, "rag-opt", "completion", "csh")
    assert done.returncode == 2
    assert done.stderr.startswith("error: rag-opt completion csh: ")
