"""The tags of a version and of a flow's run: a few for people, and those that commands read.

MLflow's page of a version sorts tags by the code points of their names and shows only the first few; its other pages list them
in the order in which they were set. Tags for people therefore begin with a capital and are set first, and the figures of all
AUs share one tag.
"""

from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError

from aupair.errors import RegistryError

SCORE, CHOICES, NETWORK, DATA, LICENCE = "Score", "Choices", "Network", "Data", "Licence"
"""The tags for people: P2's score on validation, which mapping decides which AU, f's trunk, the data in words, the terms.

Versions of before other trunks were known have no NETWORK: theirs is a VGG16.
"""
PENDING = dict.fromkeys((SCORE, CHOICES, NETWORK, DATA, LICENCE), "known after evaluate")
"""The tags for people of a flow that has begun."""

FIGURES = "figures"
"""The tag with a JSON object of figures such as `f1.AU1`, which were separate tags in earlier versions."""
_EARLIER_NAMES = {"score": SCORE, "choices": CHOICES, "data": DATA}

_OBJECT = TypeAdapter(dict[str, str])


def join_figures(figures: Mapping[str, str]) -> dict[str, str]:
    """Return the tag with the figures of the AUs; no tag without any."""
    return {FIGURES: _OBJECT.dump_json(dict(figures)).decode()} if figures else {}


def split_figures(tags: Mapping[str, str], version: str) -> dict[str, str]:
    """Return the tags of a version of any age with each figure under its own name.

    Args:
        version: its number, for the message.

    Raises:
        RegistryError: the figures are malformed.
    """
    named = {_EARLIER_NAMES.get(key, key): text for key, text in tags.items()}
    try:
        figures = _OBJECT.validate_json(named.pop(FIGURES, "{}"))
    except ValidationError as error:
        where, got = f"tag {FIGURES} of version {version}", error.errors()[0]["msg"]
        raise RegistryError("malformed", where=where, got=got, todo="register it again") from error
    return figures | named
