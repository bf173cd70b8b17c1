"""What a served model does: the figures of README.md beside this file, each by a real server and real clients.

    python studies/production/make.py                       all of it, some 12 minutes
    python studies/production/make.py --parts equal,load    parts of it
    python studies/production/make.py --report              README.md anew from figures.json

A study of Python's language reference is run below /tmp/rag_opt-production first, unless it is there.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import tuning  # noqa: E402
from machine import describe_processor  # noqa: E402

PLACE = Path("/tmp/rag_opt-production")  # noqa: S108
STUDY, MODEL = "studies/quick", "models:/quick@champion"
KEY, SECRET = "figure-key-0123456789", "Pl4nted"
FIGURES = HERE / "figures.json"
CLIENTS, SECONDS, QUESTIONS = 50, 60, 100


Told = tuple[str, list[tuple[str, str, float]]]
"""An answer, and of each source its document, text and score."""


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--parts", default=",".join(PARTS))
    given.add_argument("--report", action="store_true")
    words = given.parse_args()
    if not words.report:
        prepare()
        known = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
        for part in words.parts.split(","):
            print(f"== {part}", flush=True)
            known[part] = PARTS[part]() | {"processor": describe_processor()}
            print(json.dumps(known[part], indent=1), flush=True)
            FIGURES.write_text(json.dumps(known, indent=1) + "\n")
    write_report()


def prepare() -> None:
    """A finished study, promoted."""
    PLACE.mkdir(exist_ok=True)
    os.chdir(PLACE)
    if not (PLACE / STUDY / "findings.json").is_file():
        run("rag_opt.study", "name=quick", "n_trials=8")
    if not (PLACE / "promoted").is_file():
        run("rag_opt.promote", STUDY, "--alias", "champion")
        (PLACE / "promoted").touch()


def run(module: str, *words: str) -> str:
    return subprocess.run([sys.executable, "-m", module, *words], check=True, text=True, stdout=subprocess.PIPE).stdout


def load_questions() -> list[str]:
    from rag_opt.datasets.python_docs import load

    return [query.text for query in load().queries[:QUESTIONS]]


@contextmanager
def serve(*words: str, model: str = MODEL, keys: str = f"figures:{KEY}", **environment: str):  # noqa: ANN201
    """(process, client) of a server of its own that is ready."""
    port = find_port()
    log = (PLACE / "serve.log").open("ab")
    known = {**os.environ, "RAG_OPT_KEYS": keys, **environment}
    command = [sys.executable, "-m", "rag_opt.serve", model, "--port", str(port), *words]
    process = subprocess.Popen(command, env=known, stdout=log, stderr=log)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {KEY}"}, timeout=120)
    try:
        wait_ready(process, client)
        yield process, client
    finally:
        client.close()
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def wait_ready(process: subprocess.Popen[bytes], client: httpx.Client) -> None:
    while process.poll() is None:
        try:
            if client.get("/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"the server ended: {(PLACE / 'serve.log').read_text()[-500:]}")


def find_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ask(client: httpx.Client, question: str) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"model": "x", "messages": [{"role": "user", "content": question}]})


# ---- the same answers ----


def measure_equality() -> dict[str, object]:
    """How many of the questions are answered alike: by rag_opt.ask, the loaded model, and both servers."""
    questions = load_questions()
    known = [ask_study(question) for question in questions]
    loaded = ask_loaded(questions)
    with serve() as (_, client):
        served = [read_completion(ask(client, question).json()) for question in questions]
    by_mlflow = ask_mlflow_server(questions)
    found = {"mlflow.pyfunc.load_model": loaded, "rag_opt.serve": served, "mlflow models serve": by_mlflow}
    return {
        "questions": len(questions),
        "same ids, order and text": {name: count_equal(known, rows) for name, rows in found.items()},
        # The study encoded its questions together: the last bits of a vector depend on what it is encoded with.
        "greatest difference of a score": f"{max(compare_scores(known, rows) for rows in found.values()):.1g}",
    }


def count_equal(known: list[Told], found: list[Told]) -> int:
    def cut(told: Told) -> tuple[str, list[tuple[str, str]]]:
        return told[0], [row[:2] for row in told[1]]

    return sum(cut(one) == cut(other) for one, other in zip(known, found, strict=True))


def compare_scores(known: list[Told], found: list[Told]) -> float:
    pairs = [pair for one, other in zip(known, found, strict=True) for pair in zip(one[1], other[1], strict=False)]
    return max(abs(one[2] - other[2]) for one, other in pairs)


def ask_study(question: str) -> Told:
    """What `python -m rag_opt.ask best=studies/quick` gives: its pipeline, kept between questions."""
    import rag_opt

    if "study" not in _KEPT:
        _KEPT["study"] = rag_opt.load_study(STUDY).best_pipeline()
    found = _KEPT["study"].run({"query": question})["rag"]
    rows = [(each.meta["document_id"], each.content, each.score) for each in found["documents"]]
    return found["answer"] or "", rows


_KEPT: dict[str, object] = {}


def ask_loaded(questions: list[str]) -> list[Told]:
    import mlflow

    mlflow.set_tracking_uri("sqlite:///studies/mlflow.db")
    model = mlflow.pyfunc.load_model(MODEL)
    return [read_response(model.predict({"input": [{"role": "user", "content": each}]})) for each in questions]


def ask_mlflow_server(questions: list[str]) -> list[Told]:
    port = find_port()
    command = ["mlflow", "models", "serve", "-m", MODEL, "--env-manager", "local", "-p", str(port)]
    known = {**os.environ, "MLFLOW_TRACKING_URI": "sqlite:///studies/mlflow.db"}
    log = (PLACE / "mlflow.log").open("wb")
    process = subprocess.Popen(command, env=known, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=120) as client:
            while True:
                try:
                    client.get("/ping")
                    break
                except httpx.TransportError:
                    time.sleep(0.2)
            rows = [client.post("/invocations", json={"input": [{"role": "user", "content": q}]}) for q in questions]
        return [read_response(row.json()) for row in rows]
    finally:
        os.killpg(process.pid, signal.SIGTERM)


def read_completion(told: dict) -> Told:
    return told["choices"][0]["message"]["content"], read_documents(told["documents"])


def read_response(told: dict) -> Told:
    return told["output"][0]["content"][0]["text"], read_documents(told["custom_outputs"]["documents"])


def read_documents(rows: list[dict]) -> list[tuple[str, str, float]]:
    return [(row["id"], row["text"], row["score"]) for row in rows]


# ---- how fast ----


def measure_start() -> dict[str, object]:
    """Seconds from the command to the first answer, in a network namespace of its own without any way out."""
    question = load_questions()[0]
    code = (
        "import subprocess,sys,time,os,httpx\n"
        "subprocess.run(['ip','link','set','lo','up'],check=True)\n"
        "start=time.time()\n"
        f"p=subprocess.Popen([sys.executable,'-m','rag_opt.serve','{MODEL}','--port','8377'],stdout=subprocess.DEVNULL)\n"
        "while True:\n"
        "    try:\n"
        "        r=httpx.post('http://127.0.0.1:8377/v1/chat/completions',json={'messages':[{'role':'user','content':"
        f"{question!r}}}]}},timeout=60)\n"
        "        break\n"
        "    except httpx.TransportError:\n"
        "        time.sleep(0.05)\n"
        "print(r.status_code, time.time()-start)\n"
        "p.terminate();p.wait()\n"
    )
    found = subprocess.run(
        ["/usr/bin/unshare", "-rn", sys.executable, "-c", code],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    ).stdout
    status, seconds = found.split()[-2:]
    return {"status": int(status), "seconds to the first answer, no network": round(float(seconds), 1)}


def measure_overhead() -> dict[str, object]:
    """Milliseconds of the same questions here and by HTTP, in turns; and of a server that keeps no traces."""
    from rag_opt.production.answering import open_folder
    from rag_opt.production.registry import Registry

    registry = Registry.connect("sqlite:///studies/mlflow.db")
    answerer = open_folder(registry.fetch(registry.find(MODEL)))
    questions = load_questions()
    with serve() as (_, client), serve("--traces", "0") as (_, silent):
        rows = []
        for place in range(3 * len(questions)):
            # Another text each time, so that nothing is known of it; the same for all three.
            text = f"{questions[place % len(questions)]} {place}"
            rows.append([timed(answerer.ask, text), timed(ask, client, text), timed(ask, silent, text)])
    columns = [statistics.median(column) * 1000 for column in zip(*rows, strict=True)]
    apart = [statistics.median([row[n] - row[0] for row in rows]) * 1000 for n in (1, 2)]
    return {
        "questions": len(rows),
        "p50 ms in this process": round(columns[0], 2),
        "p50 ms by HTTP": round(columns[1], 2),
        "p50 ms by HTTP, no traces": round(columns[2], 2),
        "p50 of the difference, ms": round(apart[0], 2),
        "p50 of the difference, no traces, ms": round(apart[1], 2),
    }


def timed(call: object, *given: object) -> float:
    start = time.perf_counter()
    call(*given)
    return time.perf_counter() - start


def measure_load() -> dict[str, object]:
    """50 clients for a minute: what they were answered, how much memory the server has after 10, 35 and 60 seconds."""
    questions = load_questions()
    with serve("--at-once", "4", "--waiting", "64") as (process, client):
        url, memory = str(client.base_url), []
        until, statuses, times = time.monotonic() + SECONDS, Counter(), []

        def work(number: int) -> None:
            with httpx.Client(base_url=url, headers=client.headers, timeout=120) as mine:
                place = number
                while time.monotonic() < until:
                    place += CLIENTS
                    start = time.perf_counter()
                    try:
                        status = ask(mine, f"{questions[place % len(questions)]} {place}").status_code
                    except httpx.TransportError as error:
                        status = type(error).__name__
                    statuses[str(status)] += 1
                    times.append(time.perf_counter() - start)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for second in (10, 35, 59):
            time.sleep(max(0.0, until - SECONDS + second - time.monotonic()))
            memory.append(round(psutil.Process(process.pid).memory_info().rss / 2**20))
        for thread in threads:
            thread.join()
    return {
        "clients": CLIENTS,
        "seconds": SECONDS,
        "answers by status": dict(statuses),
        "answers a second": round(sum(statuses.values()) / SECONDS, 1),
        "p50, p99 ms": [round(1000 * q) for q in (statistics.median(times), statistics.quantiles(times, n=100)[98])],
        "MiB after 10, 35, 59 s": memory,
    }


# ---- what goes wrong ----


def measure_ending() -> dict[str, object]:
    """SIGTERM among 20 clients, five times: questions that the server has answered, and answers that came, whole."""
    import sqlite3

    questions, told = load_questions(), Counter()
    begun, state = 0, PLACE / f"ending-{time.time_ns()}"
    for place in range(5):
        kept = state / str(place)
        with serve("--at-once", "4", "--state", str(kept)) as (process, client):
            url, ended = str(client.base_url), threading.Event()
            threads = [
                threading.Thread(target=ask_until, args=(url, questions[number:], ended, told)) for number in range(20)
            ]
            for thread in threads:
                thread.start()
            time.sleep(3)
            process.send_signal(signal.SIGTERM)
            process.wait(90)
            ended.set()
            for thread in threads:
                thread.join()
        with sqlite3.connect(kept / "journal.db") as base:
            begun += base.execute("select count(*) from entries").fetchone()[0]
    return {"times": 5, "answered by the server": begun, "whole answers that came": told["answered"], **told}


def ask_until(url: str, questions: list[str], ended: threading.Event, told: Counter[str]) -> None:
    """Ask one question after the other, each on a connection of its own, until there is nobody to ask."""
    place = 0
    while not ended.is_set():
        place += 1
        found = ask_raw(url, questions[place % len(questions)])
        told[found] += 1
        if found != "answered":
            return


def ask_raw(url: str, question: str) -> str:
    """What came of a request: answered, not taken (no byte came), or cut."""
    body = json.dumps({"messages": [{"role": "user", "content": question}]}).encode()
    host = url.removeprefix("http://").rstrip("/")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    name, port = host.split(":")
    whole = b""
    try:
        with socket.create_connection((name, int(port)), timeout=60) as connection:
            connection.sendall(head.encode() + body)
            while part := connection.recv(65536):
                whole += part
    except OSError:
        pass
    if not whole:
        return "not taken"
    return "answered" if whole.startswith(b"HTTP/1.1 200") and whole.rstrip().endswith(b"}") else "cut"


def measure_hostile() -> dict[str, object]:
    """Malformed or hostile requests: what each is answered, and whether the server answers on."""
    with serve() as (process, client):
        url = str(client.base_url).rstrip("/")
        told = {name: send_raw(url, raw) for name, raw in build_hostile(url).items()}
        after = ask(client, "What is a decorator?").status_code
        alive = process.poll() is None
    wrong = {name: status for name, status in told.items() if not re.fullmatch(r"4\d\d|closed", status)}
    return {
        "requests": len(told),
        "answers": dict(Counter(told.values())),
        "neither 4xx nor closed": wrong,
        "alive": alive,
        "next answer": after,
    }


def build_hostile(url: str) -> dict[str, bytes]:
    host = url.removeprefix("http://")
    path = "/v1/chat/completions"

    def post(body: bytes, *more: str, where: str = path, key: str = KEY, length: int | None = None) -> bytes:
        size = len(body) if length is None else length
        lines = [
            *(f"POST {where} HTTP/1.1", f"host: {host}", f"authorization: Bearer {key}"),
            *("content-type: application/json", f"content-length: {size}", "connection: close", *more),
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    def said(content: object, **more: object) -> bytes:
        return json.dumps({"messages": [{"role": "user", "content": content}], **more}).encode()

    good = said("What is a decorator?")
    bodies = {
        "empty body": b"",
        "no JSON": b"hello",
        "half of JSON": good[:-5],
        "100,000 brackets": b"[" * 100_000,
        "100,000 braces": b'{"a":' * 100_000,
        "deep in a field": b'{"messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "UTF-16": good.decode().encode("utf-16"),
        "broken UTF-8": b'{"messages":[{"role":"user","content":"\xff\xfe"}]}',
        "half a surrogate": b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        "NUL bytes": b"\0" * 1000,
        "a list": b"[1, 2]",
        "a number": b"1e400",
        "NaN": b"NaN",
        "no messages": b"{}",
        "messages none": b'{"messages": null}',
        "messages empty": b'{"messages": []}',
        "2,000 messages": json.dumps({"messages": [{"role": "user", "content": "a"}] * 2000}).encode(),
        "unknown role": b'{"messages":[{"role":"root","content":"hi"}]}',
        "content a number": said(5),
        "content an image": said([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]),
        "empty question": said("   "),
        "100,000 characters": said("a" * 100_000),
        "two answers": said("hi", n=2),
        "a long user": said("hi", user="u" * 10_000),
        "stream a word": said("hi", stream="perhaps"),
        "huge number": b'{"messages":[{"role":"user","content":"hi"}],"n":' + b"9" * 5_000 + b"}",
    }
    found = {name: post(body) for name, body in bodies.items()}
    return found | {
        "2 MB": post(b" " * 2_000_000),
        "said to be 10 GB": post(b"x", length=10**10),
        "negative length": post(b"x", length=-1),
        "compressed": post(good, "content-encoding: gzip"),
        "wrong key": post(good, key="wrong-key-0123456789"),
        "no key": post(good).replace(b"authorization", b"x-nothing"),
        "a key with odd bytes": post(good, key="\xff\xfe" * 20),
        "another site's Origin, no key": post(good, "origin: https://evil.example").replace(b"authorization", b"x-no"),
        "another Host, no key": post(good)
        .replace(f"host: {host}".encode(), b"host: evil.example")
        .replace(b"authorization", b"x-no"),
        "two lengths": post(good, "content-length: 3"),
        "length and chunks": post(good, "transfer-encoding: chunked"),
        "a header of 100 kB": post(good, f"x-long: {'a' * 100_000}"),
        "a step up": post(good, where="/../../etc/passwd"),
        "no such path": post(good, where="/v1/" + quote("<script>")),
        "TRACE": post(good).replace(b"POST", b"TRACE", 1),
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200),
        "an SSE reader that goes": post(said("What is a decorator?", stream=True)) + b"CLOSE",
    }


def send_raw(url: str, raw: bytes) -> str:
    """The status of an answer; closed where the connection was ended without one, or by us."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        leaves = raw.endswith(b"CLOSE")
        try:
            connection.sendall(raw.removesuffix(b"CLOSE"))
            if leaves:
                return "closed"
            head = connection.recv(100)
        except (TimeoutError, OSError) as error:
            return "silence" if isinstance(error, TimeoutError) else "closed"
    return head.split(b" ")[1].decode() if head.startswith(b"HTTP/") else "closed"


def measure_secrets() -> dict[str, object]:
    """12 secrets planted in keys, headers and addresses: how many are in any file, the log and traces included."""
    keys = {f"client{n}": f"{SECRET}-key-{n:02}-0123456789" for n in range(6)}
    planted = [*keys.values(), *(f"{SECRET}-{n:02}-abcDEF0123456789" for n in range(6))]
    state = PLACE / "secrets"
    with serve("--state", str(state), keys=",".join(f"{n}:{k}" for n, k in keys.items()), MY_API_KEY=planted[6]) as (
        _,
        client,
    ):
        for key in [*keys.values(), planted[7]]:
            headers = {"authorization": f"Bearer {key}", "x-request-id": planted[8], "cookie": f"s={planted[9]}"}
            for path in ("/v1/chat/completions", f"/search?token={planted[10]}", "/nothing"):
                body = {"messages": [{"role": "user", "content": f"Is {planted[6]} a name?"}], "query": "a name?"}
                client.post(path, json=body, headers=headers)
        client.get("/metrics", headers={"authorization": f"Bearer {planted[11]}"})
        time.sleep(4)
    files = [path for path in PLACE.rglob("*") if path.is_file() and path.stat().st_size < 100_000_000]
    texts = [path.read_bytes() for path in files]
    found = [secret for secret in planted if any(secret.encode() in text for text in texts)]
    return {"planted": len(planted), "files read": len(files), "found": len(found)}


def measure_outage() -> dict[str, object]:
    """MLflow's server killed among 20 clients: requests that failed or took longer, traces afterwards."""
    port = find_port()
    backend = f"sqlite:///{PLACE}/outage.db"
    uri = f"http://127.0.0.1:{port}"
    state = PLACE / f"outage-{time.time_ns()}"
    copy_registry(backend)
    log = (PLACE / "tracking.log").open("wb")

    def start() -> subprocess.Popen[bytes]:
        command = ["mlflow", "server", "--backend-store-uri", backend, "--port", str(port), "--workers", "1"]
        found = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while True:
            try:
                httpx.get(f"{uri}/health", timeout=5)
                return found
            except httpx.TransportError:
                time.sleep(0.2)

    server, since = start(), time.time()
    times: dict[str, list[float]] = {"before": [], "down": [], "after": []}
    with serve("--tracking", uri, "--state", str(state)) as (_, client):
        for when, rows in times.items():
            if when == "down":
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
            if when == "after":
                server = start()
            for question in load_questions():
                rows.append(timed(expect_answer, client, question))
        until = time.monotonic() + 90
        sent = count_traces(uri, since)
        while sent < 3 * QUESTIONS and time.monotonic() < until:
            time.sleep(1)
            sent = count_traces(uri, since)
    os.killpg(server.pid, signal.SIGTERM)
    p50 = {when: round(1000 * statistics.median(rows), 1) for when, rows in times.items()}
    return {"asked": 3 * QUESTIONS, "failed": 0, "p50 ms": p50, "traces in the end": sent}


def expect_answer(client: httpx.Client, question: str) -> None:
    ask(client, question).raise_for_status()


def copy_registry(backend: str) -> None:
    """The study's registry and runs in a database that a server of its own may have."""
    import sqlite3

    with sqlite3.connect("studies/mlflow.db") as known, sqlite3.connect(backend.removeprefix("sqlite:///")) as base:
        known.backup(base)


def count_traces(uri: str, since: float) -> int:
    """Whole traces of requests that began since then."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name("served quick")
    if found is None:
        return 0
    total, token, wanted = 0, None, f"timestamp_ms >= {int(1000 * since)}"
    while True:
        page = client.search_traces(
            locations=[found.experiment_id], max_results=500, page_token=token, filter_string=wanted
        )
        total += sum(trace.info.state == "OK" and len(trace.data.spans) > 2 for trace in page)
        token = page.token
        if not token:
            return total


def measure_feedback() -> dict[str, object]:
    """1,000 answers to 20 clients at once, a thumb for each: how many are on the trace of their own question."""
    from mlflow import MlflowClient

    state = PLACE / f"feedback-{time.time_ns()}"
    questions, since = load_questions(), int(1000 * time.time())
    with serve("--state", str(state)) as (_, client):

        def work(number: int) -> tuple[str, str]:
            text = f"{questions[number % len(questions)]} ({number})"
            told = ask(client, text).json()
            thumb = "up" if number % 3 else "down"
            client.post("/feedback", json={"id": told["id"], "thumb": thumb, "comment": text}).raise_for_status()
            return text, thumb

        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            given = dict(pool.map(work, range(1000)))
        from rag_opt.serving.journal import Journal

        journal = Journal(state)
        until = time.monotonic() + 240
        while (journal.count_unsent() or journal.find_feedback()) and time.monotonic() < until:
            time.sleep(1)
    base = MlflowClient("sqlite:///studies/mlflow.db")
    place = base.get_experiment_by_name("served quick").experiment_id
    right, token = 0, None
    while True:
        page = base.search_traces(
            locations=[place], max_results=500, page_token=token, filter_string=f"timestamp_ms >= {since}"
        )
        for trace in page:
            asked = next((span.inputs["question"] for span in trace.data.spans if span.parent_id is None), "")
            thumbs = [each for each in trace.info.assessments if each.name == "thumbs"]
            right += (
                asked in given
                and len(thumbs) == 1
                and ((thumbs[0].rationale, thumbs[0].value) == (asked, given[asked] == "up"))
            )
        token = page.token
        if not token:
            return {"thumbs": len(given), "on their own trace": right}


# ---- documents change ----


def measure_update() -> dict[str, object]:
    """1 % of MS MARCO's passages get another text (needs RAG_OPT_DATA): seconds, texts encoded, rankings beside those
    of a fresh build."""
    from rag_opt.cache.store import Store
    from rag_opt.components.resources import Resources
    from rag_opt.production.answering import open_bundle, open_folder
    from rag_opt.production.bundle import Bundle
    from rag_opt.production.bundling import write_bundle
    from rag_opt.production.registry import Registry
    from rag_opt.production.updating import Update, load_documents, update_model
    from rag_opt.system.environment import disable_gc

    if not (PLACE / "studies/msmarco/findings.json").is_file():
        collection = f"dataset.path={os.environ['RAG_OPT_DATA']}/msmarco_qa"
        run("rag_opt.study", "+experiment=msmarco", collection, "name=msmarco", "n_trials=1")
    run("rag_opt.promote", "studies/msmarco", "retriever=hybrid")
    registry, address = Registry.connect("sqlite:///studies/mlflow.db"), "models:/msmarco"
    old = Bundle.read(registry.fetch(registry.find(address)))
    rows = [{"id": each.id, "text": each.text, "title": each.title} for each in old.read_documents().items]
    changed, source = len(rows) // 100, PLACE / "changed.jsonl"

    def update(word: str) -> tuple[float, Update]:
        """Each hundredth text changed again, and the seconds that the update then takes."""
        for place in range(changed):
            rows[place * 100]["text"] += f" This was {word}, number {place}."
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        start = time.perf_counter()
        # As the command does.
        with disable_gc():
            found = update_model(registry, address, source)
        return time.perf_counter() - start, found

    seconds, found = update("changed")
    again, found = update("changed once more")
    new = Bundle.read(registry.fetch(found.model))
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        folder = Path(place)
        resources = Resources.from_store(Store(folder / "store"))
        fresh = write_bundle(folder / "fresh", old.config, load_documents(old, source), resources, new.lineage)
        ours, theirs = open_folder(new.folder), open_bundle(fresh)
        rows = [(ours.search(probe.question), theirs.search(probe.question)) for probe in new.probes]
    same = sum([s.document_id for s in one.sources] == [s.document_id for s in other.sources] for one, other in rows)
    apart = [abs(a.score - b.score) for one, other in rows for a, b in zip(one.sources, other.sources, strict=True)]
    return {
        "changed": changed,
        "texts encoded": f"{found.encoded} of {found.texts} ({found.encoded / found.texts:.2%})",
        "seconds, registering included": round(seconds, 1),
        "seconds of a second update, its libraries loaded": round(again, 1),
        "rankings equal to a fresh build's": f"{same} of {len(rows)}",
        "greatest difference of a score": f"{max(apart):.1g}",
    }


# ---- watching ----


def measure_alarms() -> dict[str, object]:
    """Simulated grades (a mean of four yes or no, questions of different difficulty), which are compared with those
    that came before them: months without a change, and a drop of 0.10 after some time. The alarm is that of one thing
    that is watched, and that in `watch`, which keeps three quarters of its 5 % for grades."""
    from rag_opt.production.drift import LOW, apply_usual_rule, bet
    from rag_opt.production.watching import GRADED

    # With 200 months alone a share of 4.4 % would be measured as more than 5 % every third time.
    alpha, months, falls = 0.05, 1_000, 400

    def draw(chance: random.Random, drop: float = 0.0) -> float:
        hard = min(1.0, max(0.0, chance.betavariate(4, 1.5) - drop))
        return sum(chance.random() < hard for _ in range(4)) / 4

    quiet = []
    for month in range(months):
        chance = random.Random(month)
        rows = [draw(chance) for _ in range(3_000)]
        quiet.append((bet((), rows, LOW, month).reached >= 1 / alpha, apply_usual_rule(rows) >= 0))
    caught = dict[str, str]()
    for before in (100, 200, 300, 600):
        found = []
        for place in range(falls):
            chance = random.Random(place)
            rows = [*(draw(chance) for _ in range(before)), *(draw(chance, 0.10) for _ in range(300))]
            path = bet((), rows, LOW, place).path
            found.append((max(path[:before]), max(path[before:])))
        limits = (1 / alpha, 1 / (GRADED * alpha))
        alone, among = (sum(early < limit <= late for early, late in found) / falls for limit in limits)
        caught[f"after {before}"] = f"{alone:.1%}, in watch: {among:.1%}"
    return {
        "months of 3,000 grades without a change": months,
        "false alarms": f"{sum(ours for ours, _ in quiet) / months:.1%}",
        "false alarms of the usual rule": f"{sum(usual for _, usual in quiet) / months:.1%}",
        "a drop of 0.10 alarmed within 300 grades, by grades before it": caught,
    }


def measure_first_token() -> dict[str, object]:
    """Five questions answered by SmolLM2-135M on this machine's processor, streamed: seconds to the first piece of an
    answer, and to its end."""
    from rag_opt.production.promotion import promote_study

    uri = f"sqlite:///{PLACE}/spoken.db"
    (PLACE / "spoken.db").unlink(missing_ok=True)
    promote_study(Path(STUDY), "spoken", overrides=["generator=llm", "llm=smollm2"], tracking=uri)
    rows = []
    with serve("--tracking", uri, model="models:/spoken@champion") as (_, client):
        for question in load_questions()[:6]:
            body = {"model": "x", "stream": True, "messages": [{"role": "user", "content": question}]}
            start = time.perf_counter()
            with client.stream("POST", "/v1/chat/completions", json=body) as told:
                said = (line for line in told.iter_lines() if re.search(r'"content": "[^"]', line))
                pieces = [time.perf_counter() - start for _ in said]
            rows.append((pieces[0], time.perf_counter() - start, len(pieces)))
    # The first one loads the model.
    rest = rows[1:]
    return {
        "answers": len(rest),
        "pieces": [count for _, _, count in rest],
        "seconds to the first piece": [round(first, 1) for first, _, _ in rest],
        "seconds to the end": [round(end, 1) for _, end, _ in rest],
    }


# ---- tuned again ----


def measure_rollbacks() -> dict[str, object]:
    """Five rollbacks among 10 clients: seconds until the version before answers all, and requests that failed."""
    return tuning.measure_rollbacks(serve, ask)


def write_report() -> None:
    known = json.loads(FIGURES.read_text())
    lines = [(HERE / "head.md").read_text().strip(), ""]
    for part, rows in known.items():
        lines += [f"### {part}", "", (PARTS[part].__doc__ or "").strip(), "", "| | |", "| --- | --- |"]
        lines += [f"| {name} | {format_value(value)} |" for name, value in rows.items()]
        lines.append("")
    (HERE / "README.md").write_text("\n".join(lines))


def format_value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {format_value(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


PARTS = {
    "equal": measure_equality,
    "start": measure_start,
    "overhead": measure_overhead,
    "load": measure_load,
    "ending": measure_ending,
    "hostile": measure_hostile,
    "secrets": measure_secrets,
    "outage": measure_outage,
    "feedback": measure_feedback,
    "first": measure_first_token,
    "update": measure_update,
    "alarms": measure_alarms,
    "retune": tuning.measure_false_promotions,
    "rollback": measure_rollbacks,
}

if __name__ == "__main__":
    main()
