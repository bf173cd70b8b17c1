"""`python -m rag_opt.retune models:/<name> [key=value ...]`: a served model tuned again on what people asked since.

For cron or CI; each call does what comes next. A challenger that answers as a canary is compared with the champion by
their traces: worse, it is taken back; as good for --answers answers, it becomes the champion. Where there is none, the
questions asked since the last time, of which people have said what is right, are checked; a study starts from the
champion and its earlier trials, and those questions, which it has not searched, decide: a configuration becomes the
challenger where the whole interval of its difference is above --min-gain, or where it is tied and cheaper.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rag_opt.cli.arguments import Storage, command_line
from rag_opt.console.terminal import sanitize_line
from rag_opt.errors import ModelError
from rag_opt.system import environment

if TYPE_CHECKING:
    from rag_opt.production.canary import Canary
    from rag_opt.production.material import Champion, Material
    from rag_opt.production.registry import Registry
    from rag_opt.production.retuning import Prepared
    from rag_opt.production.rounds import Round

# Not REFUSED, which is 2: cron tells a canary that lost from a command that could not run.
TAKEN_BACK = 1


@command_line("retune", __doc__, studies=False)
def main(
    model: Annotated[str, Argument(help="models:/<name>")],
    overrides: Annotated[
        list[str] | None, Argument(help="key=value: of the study, such as n_trials=40 or budget.minutes=30")
    ] = None,
    min_gain: Annotated[
        float, Option(min=0.0, help="how much better, by the whole interval, in the metric's own unit")
    ] = 0.0,
    fewest: Annotated[int, Option(min=2, help="so many fresh questions are needed, or nothing is run")] = 50,
    answers: Annotated[
        int, Option(min=0, help="so many answers of a canary come before it is the champion; 0: at once")
    ] = 100,
    alpha: Annotated[float, Option(min=0.0001, max=0.5, help="probability of taking a good canary back")] = 0.05,
    questions: Annotated[Path | None, Option(help="a file of fresh questions beside, as dataset.questions")] = None,
    studies: Annotated[Path, Option(help="where the champion's study lies, and those that tune it")] = Path("studies"),
    take_back: Annotated[bool, Option("--take-back", help="take the challenger back, whatever it answered")] = False,
    tracking: Annotated[
        str | None, Option(help="MLflow's address; MLFLOW_TRACKING_URI or studies/mlflow.db where none is given")
    ] = None,
    storage: Storage = None,
) -> None:
    """The command line."""
    print(sanitize_line("rag_opt.retune: reading the model and its traces, which takes some seconds"), flush=True)
    with environment.disable_gc():
        environment.silence_optuna()
        from filelock import FileLock

        from rag_opt.production.canary import find_canary
        from rag_opt.production.material import open_champion
        from rag_opt.production.registry import Registry, check_name
        from rag_opt.system.waiting import hold_lock
    if check_name(model):
        raise ModelError(f"{model}: models:/<name> is expected: which version answers is what is decided")
    name = model.removeprefix("models:/")
    registry = Registry.connect(tracking)
    studies.mkdir(parents=True, exist_ok=True)
    # A cron job may begin while the last one still tunes, and both would take up one round.
    with hold_lock(FileLock(studies / f".{name}-retune.lock"), f"tunes models:/{name} again"):
        if take_back:
            _take_back(registry, name)
        elif canary := find_canary(registry, name, alpha):
            _settle(registry, studies, canary, answers)
        else:
            champion = open_champion(registry, name, studies, storage)
            if found := _prepare(champion, questions, fewest, overrides or ()):
                _tune(champion, *found, min_gain, answers)


def _prepare(
    champion: Champion, questions: Path | None, fewest: int, overrides: Sequence[str]
) -> tuple[Round, Prepared] | None:
    """The round that is to be run; None where too few people have said what is right."""
    from rag_opt.production.rounds import open_round

    corpus = champion.bundle.lineage.corpus
    # The round that is open may have lost its questions; then, once, a new one is tried.
    for _ in range(2):
        # In ms, as MLflow counts.
        until = int(time.time() * 1000)
        now = open_round(champion.registry, champion.model, corpus, champion.studies, until)
        begun = now.is_begun
        if prepared := _gather(champion, now, questions, fewest, overrides):
            return now, prepared
        now.give_up()
        if not begun:
            return None
        _say(f"{now.folder}: of its questions some were deleted, or are told otherwise, since: another one begins")
    return None


def _gather(
    champion: Champion, now: Round, questions: Path | None, fewest: int, overrides: Sequence[str]
) -> Prepared | None:
    from rag_opt.production.material import collect_material
    from rag_opt.production.retuning import prepare_study

    material = collect_material(champion, now, questions)
    _print_material(material)
    if len(material.fresh) < fewest:
        _say(f"models:/{champion.name} stays: {len(material.fresh)} fresh questions, {fewest} are needed (--fewest)")
        return None
    prepared = prepare_study(champion, material, now, overrides)
    if prepared is None:
        return None
    _print_prepared(prepared)
    if prepared.confirming < fewest:
        _say(f"models:/{champion.name} stays: {prepared.confirming} passed the check, {fewest} are needed (--fewest)")
        return None
    return prepared


def _take_back(registry: Registry, name: str) -> None:
    from rag_opt.production.canary import roll_back
    from rag_opt.production.registry import CHALLENGER

    _say(roll_back(registry, registry.find(f"models:/{name}@{CHALLENGER}"), CHALLENGER, "--take-back"))


def _settle(registry: Registry, studies: Path, canary: Canary, needed: int) -> None:
    """What becomes of a challenger by what it has answered so far."""
    from rag_opt.production.canary import crown_challenger, roll_back
    from rag_opt.production.registry import CHALLENGER, CHAMPION, read_lineage
    from rag_opt.production.rounds import find_rounds, mark_seen

    name, version, other = str(canary.challenger.name), canary.challenger.version, canary.champion.version
    lineage = read_lineage(canary.challenger)
    for found in find_rounds(studies, name):
        # The round that made it has decided: a kill may have come before that was noted.
        if lineage is not None and found.folder.name == lineage.study:
            mark_seen(registry, found)
    _say(f"canary: version {version} answered {canary.answered:,}, the champion {other} {canary.beside:,} beside it")
    if canary.alarms:
        worse = ", ".join(stream.name for stream in canary.alarms)
        _say(roll_back(registry, canary.challenger, CHALLENGER, f"as a canary it was worse: {worse}"))
        _say(f"  worse than the champion: {worse}")
        sys.exit(TAKEN_BACK)
    if (fewer := min(canary.answered, canary.beside)) < needed:
        _say(f"models:/{name} stays: {needed - fewer:,} more answers of each are awaited (--answers {needed})")
        _say(f"serve: python -m rag_opt.serve models:/{name}@{CHAMPION} --canary models:/{name}@{CHALLENGER}=0.1")
        return
    crown_challenger(registry, canary)
    _say(f"models:/{name}@{CHAMPION} is version {version} now, in place of {other}")
    _say(f"back: python -m rag_opt.watch models:/{name} --rollback takes it back where its quality falls")


def _tune(champion: Champion, now: Round, prepared: Prepared, min_gain: float, answers: int) -> None:
    """Run the study, and have it decide."""
    from rag_opt.cli.study import run_study
    from rag_opt.production.promotion import promote_study
    from rag_opt.production.registry import CHALLENGER, CHAMPION
    from rag_opt.production.retuning import explain_decision
    from rag_opt.production.rounds import mark_seen

    name = champion.name
    # First: from here on a kill is survived, since the same command finds this round again.
    now.begin()
    _say(f"  read them: {now.page}")
    outcome = run_study(prepared.words)
    if outcome.findings is None or outcome.error:
        raise ModelError(f"models:/{name} stays: {outcome.error or 'nothing was run'}")
    moves, why = explain_decision(outcome.findings.confirmation, min_gain)
    if not moves:
        mark_seen(champion.registry, now)
        _say(f"models:/{name} stays version {champion.model.version}: {why}")
        return
    alias = CHALLENGER if answers else CHAMPION
    found = promote_study(outcome.folder, name, alias, tracking=champion.registry.uri, storage=outcome.url)
    # Last: where a kill comes between, `_settle` notes it by the challenger that is there.
    mark_seen(champion.registry, now)
    _say(f"{found.address} is version {found.model.version} now: {why}")
    if answers:
        _say(f"canary: python -m rag_opt.serve models:/{name}@{CHAMPION} --canary {found.address}=0.1")
        again = shlex.join(["python", "-m", "rag_opt.retune", f"models:/{name}"])
        _say(f"then:   {again}, which makes it the champion")


def _print_material(material: Material) -> None:
    _say(f"{len(material.old):,} questions that the model was tuned with, {len(material.fresh):,} fresh ones")
    for reason, count in material.left.items():
        _say(f"  {count:,} left out, which {reason}")


def _print_prepared(prepared: Prepared) -> None:
    for flag, count in prepared.rejected.items():
        _say(f"  {count:,} fresh ones left out as {flag}")
    _say(f"{prepared.searched:,} questions are searched, {prepared.confirming:,} fresh ones confirm")


def _say(line: str) -> None:
    print(sanitize_line(line), flush=True)
