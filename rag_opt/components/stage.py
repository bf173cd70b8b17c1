"""What our components share: a fingerprint made of their parameters, and the resources that they work with."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.records.keys import FORM, compute_key, drop_added, get_algorithm

if TYPE_CHECKING:
    from rag_opt.console.notices import Notices
    from rag_opt.llm.client import LLMClient

IN_MEMORY = Resources.from_store(Store())
"""What components work with when nobody gave them anything else."""


class Stage:
    """A component whose constructor's parameters are its attributes, under the same names.

    That is also what Haystack needs to serialise it. A class names what it computes by an `algorithm` of its own, which
    stays when the class moves or is renamed, and changes when its products do: what is kept is found by it. One without
    goes by its dotted name.
    """

    algorithm: ClassVar[str]
    resources: Resources = IN_MEMORY

    pays_per_query = False
    """Whether a query costs so much (a language model's call) that pruning a trial should spare it.

    Queries then come in batches, otherwise all at once.
    """

    handing: tuple[str, ...] = ()
    """The constructor's parameters that say how much of a ranking is handed on, and change no place in it."""

    def use(self, resources: Resources) -> None:
        """Work with these resources from now on, nested parts too."""
        self.resources = resources
        for name in get_parameter_names(type(self)):
            if isinstance(part := getattr(self, name), Stage):
                part.use(resources)

    @property
    def store(self) -> Store:
        """Where products are kept."""
        return self.resources.store

    @property
    def llm(self) -> LLMClient:
        """The way to language models."""
        return self.resources.llm

    @property
    def notices(self) -> Notices:
        """What says a line once."""
        return self.resources.notices

    def forget(self) -> None:
        """Drop what is remembered of single texts, nested parts' too: a question is to be timed as if it were new."""
        for name in get_parameter_names(type(self)):
            if isinstance(part := getattr(self, name), Stage):
                part.forget()

    @property
    def fingerprint(self) -> str:
        """The hash of what the class computes, by its `algorithm`, and of every constructor parameter."""
        values = {name: get_identity(getattr(self, name)) for name in get_parameter_names(type(self))}
        # Less what was added since and changes nothing: what older stores hold stays valid.
        return compute_key(FORM, get_algorithm(type(self)), drop_added(values))


class Part(Stage):
    """What components are made of: an encoder, a model's endpoint. Haystack serialises it by its own to_dict."""

    def to_dict(self) -> dict[str, Any]:
        """Its class and constructor parameters, nested parts alike."""
        from rag_opt.system.haystack import default_to_dict

        values = {name: getattr(self, name) for name in get_parameter_names(type(self))}
        return default_to_dict(
            self, **{name: value.to_dict() if isinstance(value, Part) else value for name, value in values.items()}
        )


def get_parameter_names(kind: type) -> tuple[str, ...]:
    """The names of a class's own constructor parameters, `self`, *args and **kwargs left out."""
    if kind not in _names:
        # The signature of the class itself would be that of Haystack's metaclass.
        parameters = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
        named = (each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD))
        _names[kind] = tuple(each.name for each in named if each.name != "self")
    return _names[kind]


_names: dict[type, tuple[str, ...]] = {}
"""What was found of each class: every pipeline that is built asks for it many times."""


def is_optional(kind: type, name: str) -> bool:
    """Whether a class's own constructor does without this parameter: its default is None."""
    found = inspect.signature(kind.__init__).parameters.get(name)  # type: ignore[misc]
    return found is not None and found.default is None


def get_identity(value: Any) -> Any:
    """What stands for a parameter's value in a fingerprint: nested parts by their own fingerprint."""
    return getattr(value, "fingerprint", value)
