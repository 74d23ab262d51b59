"""Conversations for `story_chat`, with stories among them: what a small model can learn to answer.

    python recipes/story_chats.py texts.jsonl chats.jsonl.gz ... --out chats.jsonl

takes the texts that `story` was trained on, and files of conversations as `circius finetune` reads them. From the
texts it makes requests for stories ("Tell me a story about the dog."), whose answers are paragraphs of the books, so
that they stay what the model has learnt to write. Conversations are taken over where all of their turns are short.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

LONGEST_TURN = 400
"""Characters; longer ones are beyond a model of this size."""
STORY = (220, 900)
"""Characters of a paragraph, or some together, that will do as a story's beginning."""
ASKED = (
    'Tell me a story that begins with "{begin}"', 'Please go on: "{begin}"', 'Continue this story: "{begin}"',
    'What comes after "{begin}"?', "Tell me a story about {topic}.", "Write a story with {topic} in it.",
    "I would like to hear about {topic}.",
)  # fmt: skip
TOPIC = re.compile(
    r"\b(?:the|a|an) (?:(?:little|old|big|great|young|poor|white|black|good) )?"
    r"(?:dog|cat|horse|king|queen|princess|prince|boy|girl|bird|wolf|fox|bear|ship|sea|castle|garden|forest|fairy|giant|"
    r"dragon|train|doll|tree|house|witch|rabbit|mouse|lion|ring|river|mother|father|child|soldier|tailor|frog|duck)\b"
)


def conversations(path: Path) -> Iterator[dict[str, object]]:
    """Those of a file whose turns are all short, in the form of messages."""
    from circius.train.conversations import read_conversations

    for conversation in read_conversations(path, on_problem=print):
        messages = [{"role": each.role, "content": each.content} for each in conversation.messages]
        if all(0 < len(message["content"]) <= LONGEST_TURN for message in messages):
            yield {"messages": messages}


def stories(path: Path, own: random.Random) -> Iterator[dict[str, object]]:
    """Requests whose answers are pieces of the texts."""
    with path.open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    for text in dict.fromkeys(texts):
        for passage in passages(text):
            asked = own.choice(ASKED)
            topic = TOPIC.search(passage)
            if "{topic}" in asked and topic is None:
                continue
            begin = " ".join(passage.split()[: own.randint(4, 8)])
            request = asked.format(begin=begin, topic=topic[0] if topic else "")
            answer = passage if "{topic}" in asked or "begins" in asked else passage[len(begin) :].strip()
            if answer:
                yield {"messages": [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]}


def passages(text: str) -> Iterator[str]:
    """Neighbouring paragraphs, joined until they are long enough; headings and what gets too long are left out."""
    held = ""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(("#", "[", "*")):
            held = ""
            continue
        held = f"{held}\n\n{paragraph}" if held else paragraph
        if len(held) >= STORY[0]:
            if len(held) <= STORY[1]:
                yield held
            held = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("chats", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most-stories", type=int, default=9_000)
    given = parser.parse_args()
    own = random.Random(0)
    all_stories = list(stories(given.texts, own))
    made = own.sample(all_stories, k=min(given.most_stories, len(all_stories)))
    made += [each for path in given.chats for each in conversations(path)]
    own.shuffle(made)
    with given.out.open("w", encoding="utf-8") as out:
        for each in made:
            out.write(json.dumps(each, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
