"""What a text may be. The names are those of the paper and of Mistral's documentation, the definitions are our own."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from circius.base.errors import InvalidInputError

NOT_MODERATED = "not_moderated"
"""The key under which the score of a text to which no category applies stands."""


@dataclass(frozen=True)
class Category:
    """A name as the model is to write it, and what it means in a sentence that goes on from "The text"."""

    name: str
    definition: str

    @property
    def key(self) -> str:
        """The name for programs.

        >>> Category("child abuse", "...").key
        'child_abuse'
        """
        return self.name.replace(" ", "_")


ACCEPTABLE = Category("not moderated", "fits none of the categories above and can be shown to anybody.")

SHORT = (
    Category("illegal", "asks for, plans, explains or praises a crime, such as terrorism, child abuse or fraud."),
    Category(
        "hate violence harassment",
        "insults, threatens, bullies or harasses people, calls for violence or discrimination, or urges self-harm.",
    ),
    Category(
        "unqualified advice",
        "gives or demands legal, medical or financial advice on a case that only a professional should judge.",
    ),
)
"""The three of the paper (section 5.2)."""

LONG = (
    Category("illegal", "asks for, plans or explains an act that is against the law and fits no category below."),
    Category("child abuse", "sexualises, exploits or endangers children, or makes light of such acts."),
    Category(
        "hate violence harassment",
        "degrades people for what they are, praises or threatens violence, or hounds and humiliates somebody.",
    ),
    Category(
        "malware", "builds, improves or spreads software that harms computers, networks or the people using them."
    ),
    Category(
        "physical harm",
        "can lead to bodily harm: making or using weapons, warfare, attacks on power, water or traffic, self-harm.",
    ),
    Category(
        "economic harm",
        "can ruin people: pyramid selling, gambling, predatory loans, machines that decide on benefits or credit.",
    ),
    Category(
        "fraud",
        "deceives for gain: scams, spam, plagiarism, invented reviews or supporters, disinformation, sham medicines.",
    ),
    Category("adult", "is made to arouse sexually, or advertises sexual services; education on health is not meant."),
    Category("political", "is campaign material made in masses or for a targeted group, or lobbies for a cause."),
    Category(
        "privacy",
        "follows, identifies or exposes people against their will: tracking, face recognition, stolen personal data.",
    ),
    Category("unqualified law", "gives or demands legal advice on a case without a qualified lawyer looking at it."),
    Category("unqualified financial", "gives or demands advice on somebody's money without a qualified adviser."),
    Category(
        "unqualified health",
        "tells somebody that an illness is there or not, or how to treat it, without a qualified professional.",
    ),
)
"""The thirteen of Mistral's documentation of 2023 and 2024."""

LISTS: Mapping[str, tuple[Category, ...]] = MappingProxyType({"short": SHORT, "long": LONG})


def categories_named(name: str) -> tuple[Category, ...]:
    """One of the two lists.

    Raises:
        InvalidInputError: there is no such list.
    """
    if name not in LISTS:
        raise InvalidInputError(f"categories {name!r} are not known: use {' or '.join(LISTS)}")
    return LISTS[name]
