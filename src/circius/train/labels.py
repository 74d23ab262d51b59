"""Which tokens of a conversation are learnt: the assistant's answers and their ends, by what the template says."""

from itertools import chain

import numpy as np

from circius.base.errors import InvalidInputError
from circius.text.chat import ChatTemplate
from circius.text.segments import Segment
from circius.train.conversations import Conversation
from circius.train.example import Example


def labelled(template: ChatTemplate, conversation: Conversation) -> Example:
    """The ids of a conversation, and which are learnt: those of answers whose weight is not 0, their end included.

    The template encodes every part by itself and says which are answers; no text is searched.

    Raises:
        TemplateError: the template cannot render the conversation, or cannot tell its answers apart.
        InvalidInputError: nothing would be learnt, or everything, or half of a turn.
    """
    segments = template.segments(conversation.messages, tools=conversation.tools)
    learnt = [_is_learnt(segment, conversation) for segment in segments]
    lengths = [len(segment.ids) for segment in segments]
    example = Example(
        np.fromiter(chain.from_iterable(segment.ids for segment in segments), np.int64, sum(lengths)),
        np.repeat(np.array(learnt), lengths),
    )
    if not 0 < example.n_learnt < len(example) - 1:
        share = "none" if not example.n_learnt else "all"
        raise InvalidInputError(
            f"{share} of its {len(example)} tokens would be learnt: a conversation has something asked and something "
            "answered"
        )
    return example


def _is_learnt(segment: Segment, conversation: Conversation) -> bool:
    wanted = {conversation.learnt[index] for index in segment.answers}
    if len(wanted) > 1:
        places = " and ".join(f"messages[{index}]" for index in segment.answers)
        raise InvalidInputError(f"{places} become one answer, so they need the same weight")
    return wanted == {True}
