"""One door for contributors and CI: `nox` runs all of it, `nox -s lint` one part; CI runs the same sessions."""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True

CONSTRAINTS = ("-c", "constraints.txt")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and the direction of imports; seconds."""
    session.install("ruff>=0.17,<0.18", "import-linter>=2.5,<3", *CONSTRAINTS)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", env={"PYTHONPATH": "."})


@nox.session
def tests(session: nox.Session) -> None:
    """Types, then every test: unit, contract, integration (real studies, real data where RAG_OPT_DATA points)."""
    install(session)
    session.run("mypy")
    session.run("pytest", "-n", "2", "--dist", "worksteal", "--durations", "10", *session.posargs)


@nox.session
def unit(session: nox.Session) -> None:
    """The tests that need no model and no process of their own: under a minute."""
    install(session)
    session.run("pytest", "-n", "2", "tests/unit", *session.posargs)


@nox.session
def notebooks(session: nox.Session) -> None:
    """Run the notebooks and keep what they show."""
    install(session)
    for path in sorted(Path("notebooks").glob("*.ipynb")):
        session.run("jupyter", "execute", "--inplace", "--allow-errors=False", str(path))


@nox.session
def bench(session: nox.Session) -> None:
    """Speed, side by side with stock components, into studies/speed; an hour, or `-- --quick` for minutes."""
    session.install("-e", ".[bench]", *CONSTRAINTS)
    session.run("python", "studies/speed/bench.py", *session.posargs)


def install(session: nox.Session) -> None:
    """The package as users install it, with what the tests need."""
    session.install("-e", ".[test]", *CONSTRAINTS)
