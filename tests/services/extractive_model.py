"""A deterministic model: it answers with words of its prompt, so its quality follows the context it is given."""

import hashlib
import json
import math
import re
import string
from collections import Counter
from typing import Any

Json = dict[str, Any]

# In the order in which a schema that has several of them is read.
TASKS = ("score", "ranking", "queries", "relevance", "question")
STOP_WORDS = frozenset(
    "a an and are as at be been but by can did do does for from had has have he her his how i if in into is it its "
    "me my of on or our she so that the their them then there these they this to was we were what when where which "
    "who whom whose why will with would you your".split()
)
_PIECE = re.compile(r"\w{1,5}|[^\w\s]")
_PASSAGE = re.compile(r"^[ \t]*\[(\d+)\](?!\s*>)[ \t]*(.*(?:\n(?![ \t]*(?:\[\d+\]|<)).*)*)", re.MULTILINE)


def reply(request: Json, out_of_range: bool = False) -> str:
    """The content of the answer to a chat request, before any limit on its length."""
    prompt = last_user_text(request)
    schema = asked_schema(request)
    if schema is None:
        if re.search(r"\bRANK\b", prompt) and passages(prompt):
            return " > ".join(f"[{number}]" for number in ranking(prompt, out_of_range))
        return extract(prompt)
    fields = schema.get("properties") or {"answer": {"type": "string"}}
    task = next((name for name in TASKS if name in fields), "")
    values = task_values(task, prompt, fields, out_of_range)
    return json.dumps({name: values.get(name, placeholder(form, prompt)) for name, form in fields.items()})


def task_values(task: str, prompt: str, fields: Json, out_of_range: bool) -> Json:
    match task:
        case "score":
            score, reason = judge(prompt)
            return {"score": 99 if out_of_range else score, "reason": reason}
        case "ranking":
            return {"ranking": ranking(prompt, out_of_range)}
        case "queries":
            return {"queries": [] if out_of_range else paraphrases(question_of(prompt), asked_count(fields["queries"]))}
        case "relevance":
            return {"relevance": 99 if out_of_range else relevance(prompt)}
        case "question":
            return written(prompt)
    return {}


def written(prompt: str) -> Json:
    """A question about the longest of the first sentences of the first document: its words but the last three."""
    found = re.findall(r"<document>(.*?)</document>", prompt, re.DOTALL)
    numbered = [re.findall(r"^\s*\[(\d+)\] (.+)$", text, re.MULTILINE) or [("1", "nothing")] for text in found]
    chosen = [max(each[:3], key=lambda pair: len(pair[1])) for each in numbered] or [("1", "nothing")]
    words = chosen[0][1].split()
    asked = [word.strip(string.punctuation) for word in words[:-3]]
    # In another order, so that it is no copy.
    question = f"What about {' '.join(sorted(asked, key=lambda word: (-len(word), word))[:6])}?"
    answer = " ".join(words[-3:]).rstrip(".")
    return {"question": question, "answer": answer, "sentence": int(chosen[0][0]), "other": int(chosen[-1][0])}


def placeholder(form: Json, prompt: str) -> Any:
    """A value of the type that a property of no known meaning asks for."""
    if form.get("enum"):
        return form["enum"][0]
    match form.get("type"):
        case "integer" | "number":
            return 0
        case "boolean":
            return False
        case "array":
            return []
        case "object":
            return {name: placeholder(inner, prompt) for name, inner in form.get("properties", {}).items()}
    return extract(prompt)


def asked_schema(request: Json) -> Json | None:
    """The schema of the answer; a json_object request without one is read by the names its messages quote."""
    form = request.get("response_format")
    if not isinstance(form, dict) or form.get("type") not in {"json_schema", "json_object"}:
        return None
    schema = (form.get("json_schema") or {}).get("schema") or form.get("schema")
    if isinstance(schema, dict):
        return schema
    messages = " ".join(message_text(message) for message in request["messages"])
    task = next((name for name in TASKS if f'"{name}"' in messages), None)
    names = {"score": ("score", "reason"), None: ()}.get(task, (task,))
    return {"properties": {name: {} for name in names}}


def message_text(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def last_user_text(request: Json) -> str:
    texts = [message_text(message) for message in request["messages"] if message.get("role") == "user"]
    return texts[-1] if texts else message_text(request["messages"][-1])


def tagged(text: str, name: str) -> str | None:
    """What stands between the first opening and the last closing tag."""
    found = re.search(rf"<{name}\b[^>]*>(.*)</{name}>", text, re.DOTALL)
    return found[1].strip() if found else None


def question_of(prompt: str) -> str:
    return tagged(prompt, "question") or prompt


def content_words(text: str) -> set[str]:
    found = set(re.findall(r"\w+", text.lower()))
    return found - STOP_WORDS or found


def shared(left: str, right: str) -> int:
    return len(content_words(left) & content_words(right))


def sentences(text: str) -> list[str]:
    lines = (re.sub(r"</?document\b[^>]*>|^\s*\[\d+\]", " ", line) for line in text.splitlines())
    parts = (part.strip() for line in lines for part in re.split(r"(?<=[.!?])\s+", line))
    return [part for part in parts if part]


def extract(prompt: str) -> str:
    """The sentence of the documents nearest to the question; without documents, the question's words reversed."""
    question = question_of(prompt)
    candidates = sentences(tagged(prompt, "documents") or "")
    if not candidates:
        candidates = [" ".join(reversed(question.split()[:12]))]
    existing = tagged(prompt, "existing")
    new = max(candidates, key=lambda sentence: shared(sentence, question))
    if existing and shared(existing, question) >= shared(new, question):
        return existing
    return new


def squad_tokens(text: str) -> list[str]:
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def token_f1(left: str, right: str) -> float:
    ours, theirs = Counter(squad_tokens(left)), Counter(squad_tokens(right))
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else 0.0


def judge(prompt: str) -> tuple[int, str]:
    answer, reference = tagged(prompt, "answer"), tagged(prompt, "reference")
    if answer is not None and reference is not None:
        return graded(token_f1(answer, reference), "answer and reference")
    documents = tagged(prompt, "documents")
    claim = tagged(prompt, "question") if answer is None else answer
    if claim is None or documents is None:
        return 3, "Nothing to compare was found."
    # Against all the documents at once F1 would be near 0 for any answer, and say nothing.
    best = max(token_f1(claim, text) for text in [documents, *sentences(documents)])
    return graded(best, "the text and its nearest document sentence")


def graded(f1: float, what: str) -> tuple[int, str]:
    return 1 + round(4 * f1), f"Word overlap of {what}: F1 {f1:.2f}."


def passages(prompt: str) -> dict[int, str]:
    """The numbered passages of a prompt; the first text under a number counts."""
    found: dict[int, str] = {}
    for number, text in _PASSAGE.findall(tagged(prompt, "documents") or prompt):
        found.setdefault(int(number), text)
    return found


def ranking(prompt: str, out_of_range: bool = False) -> list[int]:
    texts, question = passages(prompt), question_of(prompt)
    if out_of_range:
        return [max(texts, default=0) + 90 + step for step in range(max(len(texts), 1))]
    return sorted(texts, key=lambda number: -shared(texts[number], question))


def asked_count(form: Json) -> int:
    return int(form.get("maxItems") or form.get("minItems") or 3)


def paraphrases(question: str, count: int) -> list[str]:
    """Each drops another word of the question and starts at another place."""
    words = question.split() or ["question"]
    found = []
    for step in range(count):
        left_out = step % len(words)
        kept = words[:left_out] + words[left_out + 1 :] if len(words) > 3 else words
        start = (step + 1) % len(kept)
        found.append(" ".join(kept[start:] + kept[:start]))
    return found


def relevance(prompt: str) -> int:
    question = question_of(prompt)
    document = tagged(prompt, "document") or tagged(prompt, "documents") or ""
    return round(10 * shared(question, document) / max(len(content_words(question)), 1))


def pieces(text: str) -> list[str]:
    """The tokens of a text, each with the blanks before it; together they are the text."""
    ends = [found.end() for found in _PIECE.finditer(text)]
    if not ends:
        return [text] if text else []
    ends[-1] = len(text)
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def prompt_tokens(messages: list[Json]) -> int:
    return sum(len(pieces(message_text(message))) + 4 for message in messages)


def embedding(text: str, dimensions: int) -> list[float]:
    """A unit vector of hashed, signed word counts."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [text]:
        code = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        vector[(code >> 1) % dimensions] += 1.0 if code & 1 else -1.0
    length = math.hypot(*vector)
    if not length:
        return [1.0] + [0.0] * (dimensions - 1)
    return [value / length for value in vector]
