"""Canaries where keys and passwords stand; then everything that real studies leave is searched for them."""

from __future__ import annotations

import base64
import gzip
import io
import os
import re
import sqlite3
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rag_opt.cli.study import run_study
from rag_opt.components.llm.completions import Completion
from rag_opt.components.llm.endpoint import OpenAIChat
from rag_opt.config.compose import check_overrides, compose_config
from rag_opt.config.trust import check_secrets, to_plain
from rag_opt.console.secrets import hide_secrets
from rag_opt.errors import ConfigError, RagOptError
from tests.conftest import ROOT
from tests.services import counts, fault, reset

pytestmark = pytest.mark.integration

ADVICE = "environment variable"


def canary(name: str) -> str:
    return f"k4n-{name}-7f3a91c2e5"


# ---- the search


def texts_of(content: bytes, depth: int = 3) -> Iterator[bytes]:
    """A file's bytes, and what they hold when they are compressed or an archive."""
    yield content
    if not depth:
        return
    for unpack in (gzip.decompress, zlib.decompress):
        try:
            inner = unpack(content)
        except (OSError, EOFError, zlib.error):
            continue
        yield from texts_of(inner, depth - 1)
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from texts_of(archive.read(name), depth - 1)


def rows_of(path: Path) -> Iterator[bytes]:
    """Every value of a SQLite file: a long text lies in pieces on its pages."""
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        for (table,) in base.execute("select name from sqlite_master where type = 'table'").fetchall():
            for row in base.execute(f'select * from "{table}"'):
                yield from (str(each).encode() if not isinstance(each, bytes) else each for each in row)
    finally:
        base.close()


def forms_of(secret: str) -> list[bytes]:
    """A secret as it may be written: plain, in UTF-16, in base64 wherever it begins in what was encoded."""
    moved = [base64.b64encode(b"x" * shift + secret.encode())[4:-4] for shift in range(3)]
    return [secret.encode(), secret.encode("utf-16-le"), *moved]


def holding(folder: Path, secret: str) -> list[str]:
    """The files below a folder in whose name, bytes or values a secret is."""
    wanted, found = forms_of(secret), []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            held = [path.as_posix().encode(), *texts_of(content)]
            if content.startswith(b"SQLite format 3"):
                held += [part for value in rows_of(path) for part in texts_of(value)]
            if any(form in text for form in wanted for text in held):
                found.append(path.relative_to(folder).as_posix())
    return found


def planted(folder: Path) -> dict[str, Callable[[str], None]]:
    def database(secret: str) -> None:
        base = sqlite3.connect(folder / "long.db")
        base.execute("create table t (x)")
        base.execute("insert into t values (?)", ("a" * 4061 + secret + "b" * 9000,))
        base.commit()
        base.close()

    def archive(secret: str) -> None:
        with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("inner.txt.gz", gzip.compress(secret.encode()))

    return {
        "plain": lambda secret: (folder / "a.html").write_text(f"<p>{secret}</p>"),
        "name": lambda secret: (folder / f"a={secret}").write_text(""),
        "gzip": lambda secret: (folder / "a.gz").write_bytes(gzip.compress(secret.encode())),
        "archive": archive,
        "database": database,
        "base64": lambda secret: (folder / "a").write_bytes(base64.b64encode(f"user:{secret}".encode())),
    }


@pytest.mark.parametrize("where", ["plain", "name", "gzip", "archive", "database", "base64"])
def test_the_search_finds_what_is_there(tmp_path: Path, where: str) -> None:
    planted(tmp_path)[where](canary("planted"))
    assert len(holding(tmp_path, canary("planted"))) == 1
    assert holding(tmp_path, canary("other")) == []


# ---- what is refused


@pytest.mark.parametrize(
    "word",
    [
        f"llm.key={canary('key')}",
        "llm.key=K4N7F3A91C2E5",
        f"web.key={canary('key')}",
        f"+llm.api_key={canary('key')}",
        f"llm.api_key={canary('key')}",
        f"+llm.chat.api_key='{canary('key')}'",
        f"+generator.components.generator.token={canary('key')}",
        f"+retriever.password={canary('key')}",
        "n_trials=sk-k4n7f3a91c2e5k4n7f3a9",
        "seed=sk-k4n7f3a91c2e5k4n7f3a9:{",
        "retriever.components.retriever.depth=sk-k4n7f3a91c2e5k4n7f3a9",
        "+mine=['Bearer k4n7f3a91c2e5k4n7f3a9']",
    ],
)
def test_a_literal_key_is_refused_with_what_to_write(animals, tmp_path: Path, word: str) -> None:
    with pytest.raises(ConfigError, match=f"{ADVICE}.*llm.key=OPENAI_API_KEY") as caught:
        run_study([*animals, word, f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store"])
    assert "k4n" not in str(caught.value).lower()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "word", ["llm.key=OPENAI_API_KEY", "web.key=MYKEY", "llm.key=${oc.env:WHICH,X_Y}", "llm.key=null"]
)
def test_the_name_of_a_variable_is_not(word: str) -> None:
    check_overrides([word])
    check_secrets(to_plain(compose_config([word])))


@pytest.mark.parametrize("key", ["web.url", "llm.base_url"])
def test_a_key_in_an_addresss_query_is_refused(animals, tmp_path: Path, key: str) -> None:
    word = f"{key}='http://127.0.0.1:9/search?api_key={canary('query')}'"
    given = [*animals, word, "llm.key=null", f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store"]
    stage = "retriever=bm25_web" if key == "web.url" else "generator=openai"
    with pytest.raises(ConfigError, match=f"{key} has a query.*{ADVICE}") as caught:
        run_study([*given, stage])
    assert canary("query") not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# ---- what studies leave


@pytest.fixture
def words(animals: list[str], tmp_path: Path) -> list[str]:
    small = ["n_trials=2", "sampler=random", "seeds=[]", "objective.report=[]", "evaluation.batches=1"]
    return [*animals, *small, f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store"]


@pytest.fixture
def model(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The words with which answers come from a model whose key is a canary."""
    monkeypatch.setenv("RAG_OPT_TEST_NAME", canary("llm"))
    reset(endpoint)
    fault(endpoint, "none")
    asks = ["generator=openai", "objective.metrics=[F1]", "retriever=dense", "llm.tries=1", "llm.timeout=2"]
    yield [*asks, f"llm.base_url={endpoint}", "llm.key=RAG_OPT_TEST_NAME"]
    fault(endpoint, "none")


def nowhere(folder: Path, told: pytest.CaptureFixture, *secrets: str) -> None:
    """No file, and nothing that was told, holds any of these; there was enough to search."""
    out, err = told.readouterr()
    (folder / "told").write_text(out + err, "utf-8")
    assert sum(path.is_file() for path in folder.rglob("*")) > 10
    assert {secret: holding(folder, secret) for secret in secrets} == {secret: [] for secret in secrets}


def test_the_keys_of_a_study_with_traces_are_nowhere(words, model, web, endpoint, tmp_path, monkeypatch, capfd) -> None:
    others = {"HF_TOKEN": "hub", "OPENAI_API_KEY": "unused", "PROMPT_PASSWORD": "prompt", "RAG_OPT_TEST_WEB": "web"}
    for name, of in others.items():
        monkeypatch.setenv(name, canary(of))
    service = [f"web.url={web}/brave/res/v1/web/search", "web.service=brave", "web.key=RAG_OPT_TEST_WEB"]
    traced = ["tracking.traces=finalists", "retriever=dense_web", *service]
    assert not run_study([*words, *model, *traced]).error
    assert counts(endpoint)["authorization_seen"]
    assert counts(web)["brave"]
    traces = sqlite3.connect(tmp_path / "studies" / "mlflow.db").execute("select count(*) from trace_info")
    assert traces.fetchone()[0]
    nowhere(tmp_path, capfd, canary("llm"), *map(canary, others.values()))


def told_by(given: list[str]) -> str:
    """What a study says that fails, by itself or before trial 0."""
    try:
        return run_study(given).error
    except RagOptError as error:
        return str(error)


@pytest.mark.parametrize("preflight", ["true", "false"])
@pytest.mark.parametrize("name", ["unauthorized", "echo"])
def test_a_key_in_a_servers_error_body_is_nowhere(
    words, model, endpoint, tmp_path, capfd, name: str, preflight: str
) -> None:
    fault(endpoint, name)
    told = told_by([*words, *model, f"preflight={preflight}"])
    assert told
    assert canary("llm") not in told
    assert counts(endpoint)["authorization_seen"]
    nowhere(tmp_path, capfd, canary("llm"))


@pytest.mark.parametrize("preflight", ["true", "false"])
def test_a_key_in_an_exceptions_text_is_nowhere(words, model, tmp_path, monkeypatch, capfd, preflight: str) -> None:
    def raising(self: OpenAIChat, *_: object) -> None:
        raise RuntimeError(f"can't send headers {{'Authorization': 'Bearer {os.environ[self.key]}'}}")

    monkeypatch.setattr(OpenAIChat, "_send_request", raising)
    told = told_by([*words, *model, f"preflight={preflight}"])
    assert "can't send headers" in told
    assert canary("llm") not in told
    nowhere(tmp_path, capfd, canary("llm"))


def test_a_key_in_a_reply_is_nowhere(words, model, tmp_path, monkeypatch, capfd) -> None:
    def echoing(self: OpenAIChat, *_: object) -> Completion:
        return Completion(f"You sent {os.environ[self.key]}.", 5, 5, "stop")

    monkeypatch.setattr(OpenAIChat, "_send_request", echoing)
    assert not run_study([*words, *model]).error
    assert holding(tmp_path, "You sent •••.")
    nowhere(tmp_path, capfd, canary("llm"))


def test_a_key_that_a_redirect_would_take_along_is_nowhere(words, web, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setattr("rag_opt.components.retrievers.web.TRIES", 1)
    monkeypatch.setenv("RAG_OPT_TEST_WEB", canary("web"))
    fault(web, "redirect_private")
    asked = ["retriever=bm25_web", f"web.url={web}/brave/res/v1/web/search", "web.key=RAG_OPT_TEST_WEB"]
    try:
        assert told_by([*words, *asked, "objective.metrics=[context.nDCG@10]", "preflight=false"])
    finally:
        fault(web, "none")
    nowhere(tmp_path, capfd, canary("web"))


def with_password(url: str, password: str) -> str:
    """The server asks for none, so any is right."""
    return url.replace("rag_opt@", f"rag_opt:{password}@")


@pytest.mark.parametrize("form", ["word", "env"])
def test_the_password_of_a_storage_is_nowhere(words, postgres, tmp_path, monkeypatch, capfd, form: str) -> None:
    url = with_password(postgres.database(f"secret_{form}"), canary("storage"))
    if form == "env":
        monkeypatch.setenv("RAG_OPT_TEST_DB", url)
        word = "storage.url=${oc.env:RAG_OPT_TEST_DB}"
    else:
        word = f"storage.url='{url}'"
    assert not run_study([*words, word, "tracking=none"]).error
    nowhere(tmp_path, capfd, canary("storage"))


@pytest.mark.parametrize("url", ["http://me:{}@127.0.0.1:9", "env"])
def test_the_password_of_a_tracking_server_is_nowhere(words, tmp_path, monkeypatch, capfd, url: str) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("RAG_OPT_TEST_URI", f"http://me:{canary('tracking')}@127.0.0.1:9")
    given = "${oc.env:RAG_OPT_TEST_URI}" if url == "env" else url.format(canary("tracking"))
    assert not run_study([*words, f"tracking.uri={given}"]).error
    nowhere(tmp_path, capfd, canary("tracking"))


def test_a_storage_that_can_not_be_opened_does_not_tell_its_password(words, tmp_path: Path) -> None:
    with pytest.raises(RagOptError) as caught:
        run_study([*words, f"storage.url=mysql://me:{canary('storage')}@host/nowhere"])
    assert canary("storage") not in str(caught.value)


def test_a_multirun_in_a_process_of_its_own_leaves_no_canary(animals, postgres, tmp_path: Path) -> None:
    """Hydra's own files, its logs, standard output and error: what only the command line leaves."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_TOKEN": canary("hub"),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "RAG_OPT_STORE": str(tmp_path / "store"),
    }
    passwords = [
        f"storage.url='{with_password(postgres.database('multirun'), canary('storage'))}'",
        f"tracking.uri=http://me:{canary('tracking')}@127.0.0.1:9",
    ]
    given = [*animals, *passwords, "n_trials=1", "sampler=random,tpe", "objective.report=[]"]
    done = subprocess.run(
        [sys.executable, "-m", "rag_opt.study", "-m", *given],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("open:") == 2, done.stderr
    assert (tmp_path / "studies" / "animals" / "multirun.yaml").is_file()
    (tmp_path / "told").write_text(done.stdout + done.stderr, "utf-8")
    for name in ("hub", "storage", "tracking"):
        assert holding(tmp_path, canary(name)) == []


# ---- the one place


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:geheim@host/db", "postgresql://me:***@host/db"),
        ("http\\://me\\:geheim@host", "http\\://me\\:***@host"),
        ("a http://:geheim@host b", "a http://:***@host b"),
        ("mysql://me:ge/heim@host/db", "mysql://me:***@host/db"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("http://host/a?x=1&api_key=geheim&y=2", "http://host/a?x=1&api_key=***&y=2"),
        ("'https://a/b?sv=2022-11-02&sp=r&sig=ge%2Bheim%3D' x", "'https://a/b?sv=2022-11-02&sp=r&sig=***' x"),
        (
            "https://b/k?X-Amz-Expires=60&X-Amz-Credential=AK%2Fus&X-Amz-Signature=0a1b",
            "https://b/k?X-Amz-Expires=60&X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        (
            "https://b/k?X-Goog-Signature=0a&GoogleAccessId=a@b.c&x=1",
            "https://b/k?X-Goog-Signature=***&GoogleAccessId=***&x=1",
        ),
        (
            "https://b/k?AWSAccessKeyId=AK&Signature=a%3D&Expires=1",
            "https://b/k?AWSAccessKeyId=***&Signature=***&Expires=1",
        ),
        ("https://b/k?X%2DAmz%2DSignature=0a#access_token=0b", "https://b/k?X%2DAmz%2DSignature=***#access_token=***"),
        (
            "https://p/?to=http%3A%2F%2Fb%2Fk%3Ftoken%3Dab%26x%3D1",
            "https://p/?to=http%3A%2F%2Fb%2Fk%3Ftoken%3D***%26x%3D1",
        ),
        ("https://b/?t=eyJhbGciOiJI.eyJzdWIiOiIx.abcd&q=a", "https://b/?t=***&q=a"),
        ("https://b/?t=Ab1cdefghijklmnopqrstuvwxyzABCDEF", "https://b/?t=***"),
        (
            "https://b/?max_tokens=5&author=me&keyword=k&id=550e8400-e29b-41d4-a716-446655440000",
            "https://b/?max_tokens=5&author=me&keyword=k&id=550e8400-e29b-41d4-a716-446655440000",
        ),
        ("sqlite:////a/b.db mail me@host", "sqlite:////a/b.db mail me@host"),
    ],
)
def test_what_is_hidden_in_a_text(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


def test_a_path_or_a_word_in_a_variable_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_KEY", "/home/me/id_25519")
    monkeypatch.setenv("MY_TOKEN", "retriever")
    assert hide_secrets("retriever /home/me/id_25519") == "retriever /home/me/id_25519"
    monkeypatch.setenv("MY_TOKEN", "retriever-25519")
    assert hide_secrets("retriever-25519") == "***"


def test_there_are_enough_canaries(figure) -> None:
    text = Path(__file__).read_text("utf-8")
    names = sorted({*re.findall(r"canary\(['\"](\w+)['\"]\)", text)} - {"planted"})
    places = text.count("nowhere(") + text.count("holding(tmp_path, canary(name))") - 1
    assert len(names) >= 6
    figure(
        "secrets",
        f"{len(names)} canaries ({', '.join(names)}) by {places} ways into studies: 0 found; "
        "literal keys refused with the form to use",
    )
