"""What the components of a pipeline work with beside their own parameters: one record, handed to all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_opt.console.notices import Notices
from rag_opt.llm.client import LLMClient
from rag_opt.llm.replies import Replies

if TYPE_CHECKING:
    from rag_opt.cache.store import Store


@dataclass(frozen=True)
class Resources:
    """The store of artifacts, the way to models, what was said already, and how deep rankings are made and measured.

    `deepest` is how deep a study will rank at most, so that rankings are made for that at once; `reach` how many
    documents a ranking is measured on (0: those that are handed on).
    """

    store: Store
    llm: LLMClient
    notices: Notices = field(default_factory=Notices)
    deepest: int = 0
    reach: int = 0

    @classmethod
    def from_store(cls, store: Store) -> Resources:
        """Those of components that keep their products in this store, and models' replies beside them."""
        return cls(store, LLMClient(Replies(store.root)))
