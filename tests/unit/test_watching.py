"""Whether a service has changed: what betting on it wins, and what a watch makes of traces."""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.tracing.client import TracingClient

from rag_opt.errors import ConfigError, StoreError
from rag_opt.production.alerts import build_alarm, check_webhook, post_alarm, write_prometheus
from rag_opt.production.bundle import Reference
from rag_opt.production.drift import EITHER, LOW, apply_usual_rule, bet
from rag_opt.production.registry import Registry
from rag_opt.production.watching import (
    ANSWERED,
    FOUND,
    Observation,
    Stream,
    Watch,
    build_streams,
    list_limits,
    read_observations,
)
from rag_opt.serving.traces import log_feedback, write_trace
from tests.services import model_server


@pytest.mark.parametrize("bets", [EITHER, LOW])
def test_without_a_change_an_alarm_is_rare_however_often_one_looks(bets) -> None:
    alarms = 0
    for month in range(100):
        chance = random.Random(month)
        rows = [chance.choice([0.0, 0.25, 0.5, 0.75, 1.0]) for _ in range(700)]
        alarms += bet(rows[:100], rows[100:], bets, month).reached >= 20
    # 5 of 100 at most, ever; with 10 a wrong test would pass once in 30 runs of other seeds.
    assert alarms <= 9


def test_a_fall_is_noticed_and_a_rise_only_where_it_is_asked_for() -> None:
    chance = random.Random(1)
    known = [chance.gauss(0.7, 0.2) for _ in range(300)]
    lower, higher = ([chance.gauss(mean, 0.2) for _ in range(300)] for mean in (0.6, 0.8))
    assert bet(known, lower, LOW).reached > 100
    assert bet(known, lower, LOW).low
    assert bet(known, higher, EITHER).reached > 100
    assert bet(known, higher, LOW).reached < 5


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False), max_size=40))
def test_any_values_are_a_bet(values) -> None:
    found = bet([], values)
    assert len(found.path) == sum(not math.isnan(value) for value in values)
    assert all(value > 0 for value in found.path)
    assert bet([], values) == found


def test_the_mean_of_what_is_won_without_a_change_is_one() -> None:
    ends = []
    for seed in range(2_000):
        chance = random.Random(seed)
        rows = [chance.random() for _ in range(30)]
        ends.append(bet(rows[:10], rows[10:], EITHER, seed).path[-1])
    mean = sum(ends) / len(ends)
    error = (sum((end - mean) ** 2 for end in ends) / len(ends) ** 2) ** 0.5
    assert abs(mean - 1) < 4 * error


def test_the_usual_rule_fires_where_the_last_ten_fall() -> None:
    assert apply_usual_rule([1.0] * 49) == -1
    assert apply_usual_rule([1.0] * 500) == -1
    assert apply_usual_rule([1.0] * 40 + [0.8] * 10) == 50


RECORD = {**model_server.RECORD, "question": "why not?", "usd": 0.5}


def test_what_a_trace_tells_is_read_again(tmp_path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    registry, client = Registry(uri, MlflowClient(uri)), TracingClient(uri)
    place = registry.find_experiment("served x")
    changes = [{}, {"version": "models:/x/2"}, {"sources": [], "usd": None}, {"error": "away", "at": 1_700_000_100.0}]
    for number, change in enumerate(changes):
        write_trace(client, place, f"{number:032x}", {**RECORD, **change})
    with registry.use():
        log_feedback(f"tr-{0:032x}", {"thumb": "down", "comment": "", "who": "me"})
    rows = read_observations(registry, "x", "models:/x/1", 1_600_000_000)
    assert rows[0] == Observation(1_700_000_000.5, 2, 0.5, 1, {"retriever": 0.01}, 0.02, 7, 0.5, False, {"thumbs": 0.0})
    assert (rows[1].hits, math.isnan(rows[1].score), math.isnan(rows[1].usd)) == (0, True, True)
    assert [row.failed for row in rows] == [False, False, True]
    assert len(read_observations(registry, "x", "models:/x/1", 1_700_000_050)) == 1
    assert read_observations(registry, "served nobody", "models:/x/1", 0) == []


def observe(number: int, score: float, **more) -> Observation:
    return Observation(float(number), 5, score, 1, {"retriever": 0.01 * number}, 0.01 * number, 0, 0.0, False, **more)


@pytest.fixture
def worse() -> Watch:
    """A model whose scores have fallen."""
    chance = random.Random(3)
    reference = Reference(tuple(chance.gauss(0.8, 0.1) for _ in range(200)), (3,) * 200, (5,) * 200)
    rows = [observe(n, chance.gauss(0.6, 0.1)) for n in range(200)]
    return Watch("models:/x/1", tuple(rows), tuple(build_streams(rows, reference)), 0.05)


def test_an_alarm_names_what_has_changed(worse) -> None:
    assert [stream.name for stream in worse.alarms] == ["first hit's score"]
    told = build_alarm(worse)
    assert told["alarms"][0]["evidence"] > 80
    assert worse.get_percentiles() == pytest.approx((0.995, 1.8905, 1.9701))
    assert worse.parts == ["retriever"]


def test_numbers_are_left_for_prometheus(worse, tmp_path) -> None:
    write_prometheus(worse, tmp_path / "watch.prom")
    text = (tmp_path / "watch.prom").read_text()
    assert 'rag_opt_watch_alarms{model="models:/x/1"} 1.0' in text
    assert 'rag_opt_watch_seconds{model="models:/x/1",part="retriever",quantile="0.5"}' in text
    with pytest.raises(StoreError, match="--prometheus"):
        write_prometheus(worse, tmp_path / "nowhere" / "watch.prom")


@pytest.mark.parametrize("url", ["http://example.org/x", "file:///etc/passwd", "ftp://localhost/x", "https://", "x"])
def test_an_alarm_goes_nowhere_in_the_clear(url) -> None:
    with pytest.raises(ConfigError, match="--webhook"):
        check_webhook(url)
    check_webhook("")
    check_webhook("https://example.org/alarm")


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict]]]:
    """A webhook on this machine, and what it was sent."""
    sent: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/alarm", sent
    server.shutdown()
    server.server_close()


def test_a_webhook_is_sent_the_alarm_and_one_that_is_away_is_said(worse, hook, said) -> None:
    url, sent = hook
    check_webhook(url)
    post_alarm(worse, url)
    assert sent[0]["model"] == "models:/x/1"
    assert not said()
    post_alarm(worse, "http://127.0.0.1:9/alarm")
    assert "could not be sent" in said()[0]


def test_error_rates_add_up_to_alpha_and_grades_have_most_of_it() -> None:
    def watched(*names: str) -> list[Stream]:
        return [Stream(name, 1, 0.0, 0.0, bet((), [0.0]), -1, quality=name != "score") for name in names]

    for names in (("score", FOUND, ANSWERED, "thumb"), (FOUND, ANSWERED), ("thumb", "judge.faithfulness")):
        limits = list_limits(watched(*names), 0.05)
        assert sum(1 / limit for limit in limits) == pytest.approx(0.05)
    assert list_limits(watched("score", FOUND, ANSWERED, "thumb"), 0.05) == pytest.approx([240, 240, 240, 80 / 3])
    assert list_limits([], 0.05) == []
