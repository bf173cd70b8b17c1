"""How texts are read: any script, and English as it always was."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter

import bm25s
import numpy as np
import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.components.retrievers.bm25 import BM25Indexer, BM25Retriever
from rag_opt.components.splitters.chunkers import NoSplitter
from rag_opt.components.tokenization import Reading, tokenize_texts
from rag_opt.console.progress import Screen
from rag_opt.datasets import python_docs
from rag_opt.records.documents import Document, Documents, Queries, Query
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Searches
from rag_opt.text import tokenization

ascii_texts = st.text(st.characters(max_codepoint=127), max_size=80) | st.lists(
    st.sampled_from("The cats' running_dogs weren't __init__ a I b2b 1980s x=1 U.S.A. e-mail relational was".split())
).map(" ".join)

ENGLISH = "english"


def as_bm25s(texts: list[str], stopwords: str | None, stemmer: str | None) -> list[list[str]]:
    reduce = Stemmer.Stemmer(stemmer) if stemmer else None
    return bm25s.tokenize(texts, stopwords=stopwords or [], stemmer=reduce, return_ids=False, show_progress=False)


@given(st.lists(ascii_texts, max_size=5), st.sampled_from([None, ENGLISH]), st.sampled_from([None, ENGLISH, "porter"]))
def test_ascii_is_read_as_bm25s_reads_it(texts: list[str], stopwords: str | None, stemmer: str | None) -> None:
    assert tokenize_texts(texts, Reading(stopwords, stemmer)) == as_bm25s(texts, stopwords, stemmer)


def test_the_packaged_collection_is_read_as_bm25s_reads_it() -> None:
    dataset = python_docs.load()
    texts = [document.text for document in dataset.documents] + [query.text for query in dataset.queries]
    assert tokenize_texts(texts, Reading(ENGLISH, ENGLISH)) == as_bm25s(texts, ENGLISH, ENGLISH)


# ---- BM25 in every script, against the formula

SETS = {
    "chinese": (
        ["水獭住在河边，吃鱼。", "骆驼住在沙漠里，吃草。", "企鹅住在南极，吃磷虾。", "松鼠住在树上，吃坚果。"],
        ["沙漠里有什么动物？", "谁吃坚果", "企鹅吃什么", "住在河边的是水獭吗"],
    ),
    "japanese": (
        [
            "カワウソは川に住み、魚を食べる。",
            "ラクダは砂漠に住み、草を食べる。",
            "ペンギンは南極に住む。",
            "リスは木の上に住む。",
        ],
        ["砂漠の動物は？", "木の上には何がいますか", "ペンギンはどこに", "ｶﾜｳｿ"],
    ),
    "korean": (
        [
            "수달은 강가에서 물고기를 먹는다.",
            "낙타는 사막에서 풀을 먹는다.",
            "펭귄은 남극에 산다.",
            "다람쥐는 나무에 산다.",
        ],
        ["사막의 동물", "다람쥐가 사는 곳은?", "펭귄이 어디", "강가에 수달"],
    ),
    "thai": (
        ["นากอยู่ริมแม่น้ำกินปลา", "อูฐอยู่ในทะเลทรายกินหญ้า", "เพนกวินอยู่ที่ขั้วโลกใต้", "กระรอกอยู่บนต้นไม้"],
        ["สัตว์ในทะเลทราย", "อะไรอยู่บนต้นไม้", "เพนกวินอยู่ที่ไหน", "ริมแม่น้ำ"],
    ),
    "hindi": (
        ["ऊदबिलाव नदी में रहता है।", "ऊँट रेगिस्तान में रहता है।", "पेंगुइन बर्फ़ पर रहता है।", "गिलहरी पेड़ों पर रहती है।"],
        ["रेगिस्तान का जीव?", "पेड़ों पर कौन", "पेंगुइन कहाँ", "नदी"],
    ),
    "turkish": (
        ["SU SAMURU IRMAKTA YAŞAR.", "Deve çölde yaşar.", "İri penguen kutupta yaşar.", "Sincap ağaçta yaşar."],
        ["su samuru ırmakta", "çölde kim", "iri penguen", "ağaçta ne var"],
    ),
    "arabic": (
        ["الجَمَلُ يَعِيشُ فِي الصَّحْرَاءِ", "البطريق يعيش في الجليد", "السنجاب يعيش فوق الشجر", "القضاعة تعيش في النهر"],
        ["الجمل الصحراء", "من فوق الشجر؟", "البطريـــق", "النهر"],
    ),
    "decomposed": (
        [
            unicodedata.normalize("NFD", each)
            for each in ("Der Löwe brüllt", "Die Möwe kräht", "Ein Zebrafohlen", "Kühe")
        ],
        ["löwe", "möwe", "zebrafohlen", "kühe"],
    ),
}


def characters(run: str) -> list[str]:
    """Letters with the marks behind them."""
    found: list[str] = []
    for letter in run:
        if found and unicodedata.category(letter) == "Mn":
            found[-1] += letter
        else:
            found.append(letter)
    return found


def read_by_hand(given_text: str) -> list[str]:
    """Words by categories and names of characters: of scripts without spaces pairs of characters."""
    plain = unicodedata.normalize("NFKC", given_text).casefold().replace("i̇", "i").replace("ı", "i")
    harakat = {chr(code) for code in [*range(0x64B, 0x660), 0x640]}
    plain = "".join(letter for letter in unicodedata.normalize("NFKC", plain) if letter not in harakat)
    runs = "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in plain).split()
    found: list[str] = []
    for run in runs:
        if unicodedata.name(run[0]).split()[0] not in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI"):
            found += [run] if len(run) > 1 else []
            continue
        letters = characters(run)
        found += ["".join(pair) for pair in zip(letters, letters[1:], strict=False)] or letters
    return found


def scores_by_hand(documents: list[str], question: str, k1: float, b: float) -> list[float]:
    """Σ idf · tf / (tf + k1 (1 - b + b · length / mean length)), Lucene's form."""
    counts = [Counter(read_by_hand(each)) for each in documents]
    lengths = [sum(each.values()) for each in counts]
    mean, total = sum(lengths) / len(lengths), len(counts)

    def part(word: str, row: int) -> float:
        containing = sum(word in each for each in counts)
        rarity = math.log(1 + (total - containing + 0.5) / (containing + 0.5))
        times = counts[row][word]
        return rarity * times / (times + k1 * (1 - b + b * lengths[row] / mean))

    return [sum(part(word, row) for word in read_by_hand(question)) for row in range(total)]


def searched(documents: list[str], questions: list[str], resources: Resources, **options: object):
    corpus = Documents(tuple(Document(f"d{i}", each) for i, each in enumerate(documents)), compute_key(documents))
    chunks = NoSplitter().run(corpus)["chunks"]
    reading = {"stemmer": None, "stopwords": None} | options
    index = BM25Indexer(1.2, 0.75, "lucene", **reading).run(chunks)["bm25_index"]
    asked = Queries.from_items(tuple(Query(f"q{i}", each) for i, each in enumerate(questions)))
    retriever = BM25Retriever(10)
    retriever.use(resources)
    return retriever.run(Searches((asked,)), index)["bm25_ranking"]


@pytest.mark.parametrize("language", SETS)
def test_bm25_finds_in_every_script_what_the_formula_finds(language: str) -> None:
    documents, questions = SETS[language]
    found = searched(documents, questions, Resources.from_store(Store()))
    best = []
    for question, rows, scores in zip(questions, found.rows, found.scores, strict=True):
        expected = np.array(scores_by_hand(documents, question, 1.2, 0.75))
        hits = [(row, score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True) if row >= 0]
        assert dict(hits) == pytest.approx({row: each for row, each in enumerate(expected) if each > 0}, rel=1e-5)
        best.append(hits[0][0])
    assert sorted(best) == [0, 1, 2, 3]


def test_a_stemmer_takes_the_words_of_its_script() -> None:
    assert tokenize_texts(["running бегущие cafés 跑步ing"], Reading(None, ENGLISH)) == [
        ["run", "бегущие", "café", "跑步", "ing"]
    ]
    assert tokenize_texts(["running бегущие"], Reading(None, "russian")) == [["running", "бегущ"]]
    ((one, many),) = tokenize_texts(["کتاب کتابهای"], Reading(None, "persian"))
    assert one == many
    # An earlier version, which stemmed nothing of it, kept its counts under the key of these fields alone.
    keys = [set(Reading(None, each).key) for each in ("russian", "persian")]
    assert keys[1] - keys[0] == {"persian"}


def test_capitals_are_those_of_the_language_where_it_is_told() -> None:
    assert tokenization.split_words("ISPARTA İzmir", "turkish") == ["ısparta", "izmir"]
    assert (
        tokenization.split_words("ISPARTA İzmir") == tokenization.split_words("ısparta izmir") == ["isparta", "izmir"]
    )
    assert Reading(None, "turkish").capitals == "turkish"
    assert Reading(None, "turkish", "english").capitals == "english"
    with pytest.raises(ValueError, match="language must be one of"):
        BM25Indexer(1.2, 0.75, "lucene", None, None, "klingon")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Würzburg", unicodedata.normalize("NFD", "WÜRZBURG")),
        ("Straße", "STRASSE"),
        ("서울", unicodedata.normalize("NFD", "서울")),
        ("ﬁle", "file"),
        ("Ｐｙｔｈｏｎ", "python"),
        ("Java™", "java"),
        ("שָׁלוֹם", "שלום"),
        ("الــعَرَبِيَّة", "العربية"),
        ("co\u00adoperate", "cooperate"),
        ("می\u200cخواهم", "میخواهم"),
        ("کتابی", "كتابي"),
        ("أحمد", "احمد"),
        ("Αθήνα", "ΑΘΗΝΑ"),
        ("ёлка", "елка"),
    ],
)
def test_spellings_of_the_same_word_are_one(one: str, other: str) -> None:
    assert tokenization.split_words(one) == tokenization.split_words(other)


def test_questions_that_share_no_word_are_counted_and_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    resources = Resources.from_store(Store())
    with Screen():
        for _ in range(2):
            searched(["apples are red", "the sky is blue"], ["apples", "grün", "жёлтый"], resources)
    line = "BM25: 2 of 3 questions share no word with any chunk"
    assert capsys.readouterr().err.count(line) == 1
    assert line in resources.notices.said
    searched(["apples are red"], ["apples"], known := Resources.from_store(Store()))
    assert not any("share no word" in each for each in known.notices.said)


def test_full_stops_of_every_script_end_a_sentence() -> None:
    given_text = "水獭吃鱼。「它在哪？」在河边！\u200bهل هذا جمل؟ نعم. क्या? हाँ। नहीं॥ πΝαι. 3．14です．次"
    assert tokenization.split_sentences(given_text) == [
        "水獭吃鱼。",
        "「它在哪？」",
        "在河边！",
        "\u200bهل هذا جمل؟",
        "نعم.",
        "क्या?",
        "हाँ।",
        "नहीं॥",
        "πΝαι.",
        "3．14です．",
        "次",
    ]


@given(ascii_texts)
def test_tokens_of_ascii_are_words_and_marks(given_text: str) -> None:
    assert tokenization.count_tokens(given_text) == len(re.findall(r"\w+|[^\w\s]", given_text))
    assert [given_text[start:end] for start, end in tokenization.find_token_spans(given_text)] == re.findall(
        r"\w+|[^\w\s]", given_text
    )


def test_tokens_are_characters_where_there_are_no_spaces() -> None:
    assert tokenization.count_tokens("水獭住在河边，吃Python 3。") == 11
    assert tokenization.count_tokens("แม่น้ำ") == 3
    assert tokenization.count_tokens("दिल्ली में") == tokenization.count_tokens("new york") == 2
