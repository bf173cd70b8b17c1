"""Which models a service answers with: the one that was named, and perhaps a canary for some of those who ask."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rag_opt.console.screens import report_line
from rag_opt.errors import ModelError
from rag_opt.production.answering import Answerer, open_bundle
from rag_opt.production.bundle import Bundle, is_bundle
from rag_opt.production.registry import ADDRESS, Registry

if TYPE_CHECKING:
    from rag_opt.serving.settings import ServerSettings

MODEL, CANARY = "model", "canary"
PREFIX = "models:/"


@dataclass(frozen=True)
class Arm:
    """A model at work: as it was named, which version that is ("" for a folder), and what answers."""

    name: str
    address: str
    version: str
    bundle: Bundle
    answerer: Answerer

    @property
    def label(self) -> str:
        """How answers name the model."""
        found = ADDRESS.fullmatch(self.address)
        return f"{PREFIX}{found['name']}/{self.version}" if found else self.address


@dataclass(frozen=True)
class Deployment:
    """The arms of a service; a request is answered by one from its beginning to its end."""

    main: Arm
    canary: Arm | None = None
    share: float = 0.0

    def choose(self, who: str) -> Arm:
        """The arm of somebody: always the same one, the canary's share of all."""
        if self.canary is None:
            return self.main
        # With the canary's version in it: the next canary is for other people.
        digest = hashlib.sha256(f"{self.canary.label}:{who}".encode("utf-8", "surrogatepass")).digest()
        return self.canary if int.from_bytes(digest[:8]) < self.share * 2**64 else self.main

    def get_version(self, name: str) -> str:
        """The version of an arm; "" without it."""
        return next((arm.version for arm in self if arm.name == name), "")

    def __iter__(self) -> Iterator[Arm]:
        return (arm for arm in (self.main, self.canary) if arm is not None)


def load_deployment(settings: ServerSettings) -> Deployment:
    """The models that a service was told to answer with, ready; raises a RagOptError where one can't be."""
    registry = Registry.connect(settings.tracking or None)
    main = load_arm(MODEL, settings.model, registry)
    if settings.canary and find_version(settings.canary, registry) is None:
        report_line(f"{settings.canary} means no version yet: once it does, it answers its share")
        return Deployment(main, None, settings.share)
    canary = load_arm(CANARY, settings.canary, registry) if settings.canary else None
    return Deployment(main, canary, settings.share)


def find_version(address: str, registry: Registry) -> str | None:
    """The version that an address means by now, "" of a folder; None where an alias means none."""
    if not address.startswith(PREFIX):
        return ""
    named = ADDRESS.fullmatch(address)
    # A name alone means its champion; without one that is an error, as for a version that is not there.
    if named is None or not named["alias"]:
        return str(registry.find(address).version)
    found = registry.find_alias(named["name"], named["alias"])
    return None if found is None else str(found.version)


def is_same_model(one: str, other: str) -> bool:
    """Whether two addresses name the same registered model, under whichever aliases."""
    named = ADDRESS.fullmatch(one), ADDRESS.fullmatch(other)
    return all(named) and len({each["name"] for each in named if each}) == 1


def replace_arm(deployment: Deployment, arm: Arm) -> Deployment:
    """The deployment with this arm in the place of the one of its name."""
    return replace(deployment, main=arm) if arm.name == MODEL else replace(deployment, canary=arm)


def load_arm(name: str, address: str, registry: Registry) -> Arm:
    """A model at work; one question is asked of it, so that what the first one loads is loaded, where that is free."""
    folder, version = find_folder(address, registry)
    bundle = Bundle.read(folder)
    answerer = open_bundle(bundle)
    if not answerer.pays_to_search:
        answerer.search("ready")
    return Arm(name, address, version, bundle, answerer)


def find_folder(address: str, registry: Registry) -> tuple[Path, str]:
    """The bundle's folder and version of models:/…, or of a folder that is a bundle."""
    if address.startswith(PREFIX):
        found = registry.find(address)
        return registry.fetch(found), str(found.version)
    if not is_bundle(Path(address)):
        raise ModelError(f"{address}: models:/<name>@<alias>, or a study's folder is expected")
    return Path(address), ""
