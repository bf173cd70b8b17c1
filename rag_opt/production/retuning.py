"""A served model tuned again: a study of its own configuration on what people have asked since, and what that decides.

The data set of such a study: the questions that the model was tuned with are searched, what was asked since confirms.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rag_opt.analysis.advice import BETTER, BROKEN, CHEAPER
from rag_opt.analysis.confirmation import BASELINE
from rag_opt.config.compose import compose_config, get_choices
from rag_opt.config.experiments import build_experiment, format_experiment, parse_search_path, read_command
from rag_opt.config.own_pipelines import PARAMETERS, SIDES
from rag_opt.config.quoting import SEARCH_PATH, format_path_list, quote_arguments
from rag_opt.config.stages import PARSER, STAGES, WHOLE, is_whole
from rag_opt.config.trial import compute_fingerprint
from rag_opt.config.trust import to_plain
from rag_opt.datasets.checks import get_corpus
from rag_opt.errors import ModelError
from rag_opt.evaluation.evaluator import build_resources, load_dataset
from rag_opt.production.material import Row
from rag_opt.production.registry import CHAMPION
from rag_opt.questions.check import check_questions
from rag_opt.questions.page import get_gold_text, render_page
from rag_opt.system.permissions import replace_text

if TYPE_CHECKING:
    from rag_opt.analysis.confirmation import Arm, Confirmation
    from rag_opt.production.material import Champion, Material
    from rag_opt.production.rounds import Round
    from rag_opt.records.documents import Dataset

SEARCHED, CONFIRMING = "dev", "test"
CONFIRMED = 300
"""Fresh questions that confirm, the latest ones; those before them are searched."""

EXPERIMENT = "champion"
SEARCH = ("sampler", "pruner", "stopping", "search_space", "seeds", "confirmation")
"""What a study takes over from the one before it: how is searched."""

PLACES = ("store", "tracking", "n_workers", "threads", "trusted_modules", "retries")
SET = (*STAGES, WHOLE, *SIDES, PARAMETERS)
"""Of its command line, too, where and with what; and what people have set there, which is not searched."""

OF_DATA = ("groups", "ignore_identical_ids")
"""What a data set's configuration says beside where its files lie."""


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to be run: its words, how many questions are searched and confirm.

    `rejected` says why how many fresh ones are in neither.
    """

    words: tuple[str, ...]
    searched: int
    confirming: int
    rejected: Mapping[str, int]


def prepare_study(champion: Champion, material: Material, now: Round, more: Sequence[str] = ()) -> Prepared | None:
    """The data set of a round written into its folder, checked, and the study's words; `more` come last.

    None where the round was begun with other questions, since some were deleted meanwhile. Raises ModelError where the
    champion can't be composed, or its documents can't be had, as they are served.
    """
    place = now.questions.parent
    (place / "experiment").mkdir(parents=True, exist_ok=True)
    _write_experiment(champion, now)
    words = _build_words(champion, now)
    with TemporaryDirectory(dir=place, prefix=".all-") as folder:
        path = Path(folder) / "questions.jsonl"
        # Old ones first: of two that ask the same the later one is the repeat.
        path.write_text(_format_rows([*material.old, *material.fresh]), "utf-8")
        whole = [*words, *quote_arguments([f"dataset.questions={path.resolve().as_posix()}", "dataset.search=all"])]
        config = compose_config(whole)
        dataset = load_dataset(config)
        _check_same(champion, words, dataset)
        # The check searches by stages of its own, which a pipeline brought whole has not.
        stages = ["pipeline=stages"] if is_whole(config) else []
        check = check_questions(dataset, [*whole, *stages], build_resources(config))
    rows = divide_rows([each.to_row() for each in check.questions], {str(row["id"]) for row in material.fresh})
    text = _format_rows(rows)
    if not now.is_begun:
        replace_text(now.questions, text)
    elif now.questions.read_text("utf-8") != text:
        return None
    texts = {each.id: each.text for each in dataset.documents}
    gold = {each.query.id: get_gold_text(each, texts) for each in check.questions}
    replace_text(now.page, render_page(check, rows, [f"questions to tune models:/{champion.name} again"], gold))
    # The first of its flags: those that reject a question come before the others.
    rejected = Counter(next(iter(row["flags"])) for row in rows if not row["accept"])
    confirming = sum(row["split"] == CONFIRMING for row in rows)
    searched = sum(row["accept"] for row in rows) - confirming
    return Prepared((*words, *quote_arguments(more)), searched, confirming, rejected)


def divide_rows(rows: Iterable[dict[str, Any]], fresh: AbstractSet[str]) -> list[dict[str, Any]]:
    """The rows with what each is for: of the fresh ones that passed the check the last confirm, the rest is searched.

    What the champion was tuned with stays as it was: only what is new is sifted.
    """
    told = [{**row, "accept": row["accept"] or row["id"] not in fresh} for row in rows]
    passed = [row["id"] for row in told if row["id"] in fresh and row["accept"]]
    confirming = frozenset(passed[-CONFIRMED:])
    return [{**row, "split": CONFIRMING if row["id"] in confirming else SEARCHED} for row in told]


def _write_experiment(champion: Champion, now: Round) -> None:
    """The champion's configuration as an experiment of its own data set, searched as its own study was."""
    experiment, search = build_experiment(champion.words), build_experiment(read_command(champion.command), SEARCH)
    node = to_plain(compose_config(champion.words).dataset)
    choice, values = get_choices(champion.words)["dataset"], dict(experiment.get("dataset", {}))
    if PARSER not in champion.bundle.config.stages:
        # As they are served: the file that they came from may have changed since.
        documents = now.questions.with_name("documents.jsonl")
        known = champion.bundle.read_documents().items
        replace_text(documents, _format_rows({"id": d.id, "text": d.text, "title": d.title} for d in known))
        kept = {key: node[key] for key in OF_DATA if node.get(key)}
        choice, values = "jsonl", {**kept, "documents": documents.resolve().as_posix()}
    # Each question says in its own row whether it is searched or confirms.
    values = {key: value for key, value in values.items() if key not in ("search", "confirm", "test")}
    defaults = [*experiment.pop("defaults"), *search.pop("defaults")]
    told = {
        "defaults": [{"override /dataset": choice} if "override /dataset" in each else each for each in defaults],
        **experiment,
        **search,
        "dataset": {**values, "questions": now.questions.resolve().as_posix()},
    }
    text = format_experiment(told, [f"{champion.name}, version {champion.model.version}"])
    replace_text(now.questions.parent / "experiment" / f"{EXPERIMENT}.yaml", text)


def _build_words(champion: Champion, now: Round) -> list[str]:
    """The words of a study that starts from the champion, and learns from its own study."""
    given, place = read_command(champion.command), now.questions.parent
    paths = [f"file://{place.resolve().as_posix()}", *parse_search_path(champion.words), *parse_search_path(given)]
    kept = [word for word in given if word.partition("=")[0].partition(".")[0] in (*PLACES, *SET)]
    promoted = [word for word in champion.words if word.partition("=")[0].partition(".")[0] in SET]
    search_path = f"{SEARCH_PATH}={format_path_list(list(dict.fromkeys(paths)))}"
    own = [f"name={now.folder.name}", f"studies_dir={now.folder.parent.as_posix()}"]
    # Of two words for one key the later counts: what was promoted, over what its study was told.
    found = [search_path, f"+experiment={EXPERIMENT}", *quote_arguments(own), *kept, *promoted]
    # The fresh questions are kept from the search, whatever the champion's own study did with its.
    found += [f"n_trials={champion.findings.trials}", "confirmation.method=split"]
    config = compose_config(found)
    # What people have asked is in MLflow once, where they can delete it.
    found += ["tracking.traces=none"] if "traces" in config.tracking else []
    # Not every sampler learns from earlier studies.
    if "earlier" in config.sampler:
        found.append(f'sampler.earlier=[{{storage: "{champion.url}", study_name: "{champion.findings.name}"}}]')
    return found


def _check_same(champion: Champion, words: Sequence[str], dataset: Dataset) -> None:
    """Raise ModelError unless the words mean what is served."""
    known = champion.bundle.lineage
    if compute_fingerprint(compose_config(words)) != known.fingerprint:
        raise ModelError(
            f"models:/{champion.name}@{CHAMPION}: its configuration can't be composed as it is served: what it names, "
            f"such as {champion.studies / known.study}/conf, has changed since"
        )
    if get_corpus(dataset).key != known.corpus:
        raise ModelError(
            f"models:/{champion.name}@{CHAMPION} was made of other documents than those that its data set names now: "
            f"python -m rag_opt.update models:/{champion.name} <documents> first"
        )


def explain_decision(confirmation: Confirmation | None, min_gain: float) -> tuple[bool, str]:
    """(whether the champion is to be replaced, why or why not), by what a study has confirmed.

    It is where the other one was found better and the difference's whole interval is above `min_gain`, or where it is
    tied and cheaper.
    """
    if confirmation is None:
        return False, "nothing was confirmed"
    arm, baseline = confirmation.recommended_arm, confirmation.baseline
    # In such a study the baseline is the champion.
    if arm.role == BASELINE:
        return False, _explain_stay(confirmation)
    told, low = _format_difference(confirmation, arm)
    if confirmation.case == BETTER and low > min_gain:
        return True, f"trial {arm.trial} is better: {told}"
    if confirmation.case == CHEAPER and baseline is not None:
        costs = f"{arm.cost:,.4g} and not {baseline.cost:,.4g} {confirmation.cost}"
        return True, f"trial {arm.trial} is as good within noise ({told}) and cheaper ({costs})"
    why = f"trial {arm.trial} is not better by more than {min_gain:g}: {told}"
    broken = (
        f"it breaks a constraint on these questions, and trial {arm.trial} keeps it, which is no comparison: "
        "python -m rag_opt.promote with --because '…' puts that one up"
    )
    return False, broken if confirmation.case == BROKEN else why


def _explain_stay(confirmation: Confirmation) -> str:
    tried = confirmation.selected_arm
    if tried.role == BASELINE:
        return "the search has found nothing better"
    told, _ = _format_difference(confirmation, tried)
    return f"of trial {tried.trial}, the best of the search, it was not confirmed that it is better: {told}"


def _format_difference(confirmation: Confirmation, arm: Arm) -> tuple[str, float]:
    """(a configuration's difference from the champion with its interval, that one's lower end), more is better."""
    sign = confirmation.sign
    # Where less is better the sign swaps the ends.
    low, high = sorted((sign * arm.difference_low, sign * arm.difference_high))
    return f"{confirmation.metric} {sign * arm.difference:+.4f} [{low:+.4f}, {high:+.4f}]", low


def _format_rows(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)
