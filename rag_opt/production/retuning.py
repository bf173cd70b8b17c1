"""A served model tuned again: a study of its own configuration on what people have asked since, and what that decides.

The data set of such a study: the questions that the model was tuned with are searched, what was asked since confirms.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.analysis.advice import CHEAPER
from rag_opt.analysis.confirmation import BASELINE
from rag_opt.config.compose import compose_config, get_choices
from rag_opt.config.experiments import build_experiment, expand_best, format_experiment, parse_search_path
from rag_opt.config.own_pipelines import PARAMETERS, SIDES
from rag_opt.config.quoting import SEARCH_PATH, format_path_list
from rag_opt.config.stages import PARSER, STAGES, WHOLE, is_whole
from rag_opt.config.trial import compute_fingerprint
from rag_opt.datasets.checks import get_corpus
from rag_opt.errors import ModelError
from rag_opt.evaluation.evaluator import build_resources, load_dataset
from rag_opt.production.material import QUESTIONS, STATE, Row, find_seen, mark_seen
from rag_opt.production.registry import CHAMPION
from rag_opt.questions.check import check_questions
from rag_opt.questions.page import get_gold_text, render_page

if TYPE_CHECKING:
    from rag_opt.analysis.confirmation import Confirmation
    from rag_opt.production.material import Champion, Material
    from rag_opt.production.registry import Registry
    from rag_opt.records.documents import Dataset

SEARCHED, CONFIRMING = "dev", "test"
CONFIRMED = 300
"""Fresh questions that confirm, the latest ones; those before them are searched."""

EXPERIMENT = "champion"
SEARCH = ("sampler", "pruner", "stopping", "search_space", "launcher", "seeds", "confirmation")
"""What a study takes over from the one before it: how is searched."""

PLACES = ("studies_dir", "store", "tracking", "n_workers", "threads", "trusted_modules", "retries")
SET = (*STAGES, WHOLE, *SIDES, PARAMETERS)
"""Of its command line, too, where and with what; and what people have set there, which is not searched."""


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to be run: its folder, its words, how many questions are searched and confirm.

    `rejected` says why how many fresh ones are in neither, `page` is where all can be read.
    """

    folder: Path
    words: tuple[str, ...]
    searched: int
    confirming: int
    rejected: Mapping[str, int]
    page: Path


def find_begun(champion: Champion) -> tuple[str, int] | None:
    """(name, moment in ms) of a study that was begun to tune this very version and has not decided; None without."""
    since = find_seen(champion.registry, champion.name)
    for path in sorted(champion.study.parent.glob(f"{champion.name}-retune-*/{STATE}")):
        known = json.loads(path.read_text("utf-8"))
        if (known["version"], known["since"]) == (str(champion.model.version), since):
            return path.parents[1].name, int(known["until"])
    return None


def name_study(champion: Champion) -> str:
    """The first name under which no study was begun."""
    names = (f"{champion.name}-retune-{number}" for number in count(1))
    folders = ((name, champion.study.parent / name) for name in names)
    return next(name for name, folder in folders if not ((folder / STATE).exists() or (folder / "study.db").exists()))


def mark_begun(champion: Champion, folder: Path, until: int) -> None:
    """The study in a folder is under way from now on: the same command goes on with it."""
    state = {"version": str(champion.model.version), "since": find_seen(champion.registry, champion.name)}
    (folder / STATE).write_text(json.dumps({**state, "until": until}), "utf-8")


def mark_decided(registry: Registry, name: str, folder: Path) -> None:
    """What the study in a folder was begun with has decided: a kill may have come before that was noted."""
    path = folder / STATE
    if path.is_file():
        mark_seen(registry, name, max(find_seen(registry, name), int(json.loads(path.read_text("utf-8"))["until"])))


def prepare_study(champion: Champion, material: Material, name: str, more: Sequence[str] = ()) -> Prepared:
    """The data set of a study written into its folder, checked, and its words; `more` come last.

    Where the folder has one already of other questions, since some were deleted meanwhile, another study takes its
    place. Raises ModelError where the champion can't be composed, or its documents can't be had, as they are served.
    """
    folder = champion.study.parent / name
    place, path = folder / "retune", folder / QUESTIONS
    (place / "experiment").mkdir(parents=True, exist_ok=True)
    _write_rows(place / "all.jsonl", [*material.old, *material.fresh])
    _write_experiment(champion, place, path)
    words = _build_words(champion, place, name)
    whole = [*words, f"dataset.questions={place / 'all.jsonl'}", "dataset.search=all"]
    config = compose_config(whole)
    dataset = load_dataset(config)
    _check_same(champion, words, dataset)
    stages = ["pipeline=stages"] if is_whole(config) else []
    check = check_questions(dataset, [*whole, *stages], build_resources(config))
    (place / "all.jsonl").unlink()
    rows = divide_rows([each.to_row() for each in check.questions], {str(row["id"]) for row in material.fresh})
    if (folder / STATE).is_file() and path.read_text("utf-8") != _format_rows(rows):
        # What was deleted meanwhile is in no data set from here on, and a study keeps the one that it began with.
        for each in (folder / STATE, path, place / "questions.html"):
            each.unlink(missing_ok=True)
        return prepare_study(champion, material, name_study(champion), more)
    _write_rows(path, rows)
    page = place / "questions.html"
    texts = {each.id: each.text for each in dataset.documents}
    gold = {each.query.id: get_gold_text(each, texts) for each in check.questions}
    page.write_text(render_page(check, rows, [f"questions to tune models:/{champion.name} again"], gold), "utf-8")
    rejected = Counter(next(iter(row["flags"])) for row in rows if not row["accept"])
    confirming = sum(row["split"] == CONFIRMING for row in rows)
    searched = sum(row["accept"] for row in rows) - confirming
    return Prepared(folder, (*words, *more), searched, confirming, rejected, page)


def divide_rows(rows: Iterable[dict[str, Any]], fresh: AbstractSet[str]) -> list[dict[str, Any]]:
    """The rows with what each is for: of the fresh ones that passed the check the last confirm, the rest is searched.

    What the champion was tuned with stays as it was: only what is new is sifted.
    """
    told = [{**row, "accept": row["accept"] or row["id"] not in fresh} for row in rows]
    passed = [row["id"] for row in told if row["id"] in fresh and row["accept"]]
    confirming = frozenset(passed[-CONFIRMED:])
    return [{**row, "split": CONFIRMING if row["id"] in confirming else SEARCHED} for row in told]


def _write_experiment(champion: Champion, place: Path, questions: Path) -> None:
    """The champion's configuration as an experiment of its own data set, searched as its own study was."""
    experiment, search = build_experiment(champion.words), build_experiment(_read_command(champion), SEARCH)
    choice, values = get_choices(champion.words)["dataset"], dict(experiment.get("dataset", {}))
    if PARSER not in champion.bundle.config.stages:
        documents = place / "documents.jsonl"
        known = champion.bundle.read_documents().items
        _write_rows(documents, ({"id": each.id, "text": each.text, "title": each.title} for each in known))
        kept = {key: values[key] for key in ("groups",) if key in values}
        choice, values = "jsonl", {**kept, "documents": documents.resolve().as_posix()}
    values = {key: value for key, value in values.items() if key not in ("search", "confirm", "test")}
    defaults = [*experiment.pop("defaults"), *search.pop("defaults")]
    told = {
        "defaults": [{"override /dataset": choice} if "override /dataset" in each else each for each in defaults],
        **experiment,
        **search,
        "dataset": {**values, "questions": questions.resolve().as_posix()},
    }
    text = format_experiment(told, [f"{champion.name}, version {champion.model.version}"])
    (place / "experiment" / f"{EXPERIMENT}.yaml").write_text(text, "utf-8")


def _read_command(champion: Champion) -> list[str]:
    """The words of the study that the champion comes from."""
    return expand_best(shlex.split(champion.findings.commands["continue"])[3:])


def _build_words(champion: Champion, place: Path, name: str) -> list[str]:
    """The words of a study that starts from the champion, and learns from its own study."""
    given = _read_command(champion)
    paths = [f"file://{place.resolve().as_posix()}", *parse_search_path(champion.words), *parse_search_path(given)]
    kept = [word for word in given if word.partition("=")[0].partition(".")[0] in (*PLACES, *SET)]
    promoted = [word for word in champion.words if word.partition("=")[0].partition(".")[0] in SET]
    search_path = f"{SEARCH_PATH}={format_path_list(list(dict.fromkeys(paths)))}"
    found = [search_path, f"+experiment={EXPERIMENT}", f"name={name}", *kept, *promoted]
    found += [f"n_trials={champion.findings.trials}", f"studies_dir={champion.study.parent.as_posix()}"]
    config = compose_config(found)
    # What people have asked is in MLflow once, where they can delete it.
    found += ["tracking.traces=none"] if "traces" in config.tracking else []
    if "earlier" in config.sampler:
        found.append(f'sampler.earlier=[{{storage: "{champion.url}", study_name: "{champion.findings.name}"}}]')
    return found


def _check_same(champion: Champion, words: Sequence[str], dataset: Dataset) -> None:
    """Raise ModelError unless the words mean what is served."""
    known = champion.bundle.lineage
    if compute_fingerprint(compose_config(words)) != known.fingerprint:
        raise ModelError(
            f"models:/{champion.name}@{CHAMPION}: its configuration can't be composed as it is served: what it names, "
            f"such as {champion.study}/conf, has changed since"
        )
    if get_corpus(dataset).key != known.corpus:
        raise ModelError(
            f"models:/{champion.name}@{CHAMPION} was made of other documents than those that its data set names now: "
            f"python -m rag_opt.update models:/{champion.name} <documents> first"
        )


def explain_decision(confirmation: Confirmation | None, min_gain: float) -> tuple[bool, str]:
    """(whether the champion is to be replaced, why or why not), by what a study has confirmed.

    It is where the difference's whole interval is above `min_gain`, or where the other one is tied and cheaper.
    """
    if confirmation is None:
        return False, "nothing was confirmed"
    arm, sign = confirmation.recommended_arm, confirmation.sign
    if arm.role == BASELINE:
        tried = confirmation.selected_arm
        if tried.role == BASELINE:
            return False, "the search has found nothing better"
        low, high = sorted((sign * tried.difference_low, sign * tried.difference_high))
        told = f"{confirmation.metric} {sign * tried.difference:+.4f} [{low:+.4f}, {high:+.4f}]"
        return False, f"of trial {tried.trial}, the best of the search, it was not confirmed that it is better: {told}"
    low, high = sorted((sign * arm.difference_low, sign * arm.difference_high))
    told = f"{confirmation.metric} {sign * arm.difference:+.4f} [{low:+.4f}, {high:+.4f}]"
    if low > min_gain:
        return True, f"trial {arm.trial} is better: {told}"
    if confirmation.case == CHEAPER:
        baseline = confirmation.baseline
        costs = f"{arm.cost:,.4g} and not {baseline.cost:,.4g}" if baseline else f"{arm.cost:,.4g}"
        return True, f"trial {arm.trial} is as good within noise ({told}) and cheaper ({costs} {confirmation.cost})"
    return False, f"trial {arm.trial} is not better by more than {min_gain:g}: {told}"


def _format_rows(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    path.write_text(_format_rows(rows), "utf-8")
