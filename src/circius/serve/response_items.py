"""The items of a response while they come, message and function calls, and the events that tell of them."""

from collections.abc import Sequence
from typing import Any, Protocol

from circius.serve.generation import new_id
from circius.text.tool_reader import CallPiece


class NewEvent(Protocol):
    """Makes an event of this kind."""

    def __call__(self, kind: str, **body: Any) -> bytes: ...


class Items:
    """One item is open at a time: the next one closes it."""

    def __init__(self, new_event: NewEvent) -> None:
        self.made: list[dict[str, Any]] = []
        """As the body of a response has them."""
        self._event = new_event
        self._is_open = False

    def add(self, text: str, calls: Sequence[CallPiece] = ()) -> list[bytes]:
        """Takes what has come."""
        events: list[bytes] = []
        if text:
            if not self._is_open or self._last["type"] != "message":
                events += self.open_message()
            self._last["content"][0]["text"] += text
            events.append(self._about("response.output_text.delta", content_index=0, delta=text, logprobs=[]))
        for piece in calls:
            if piece.id is not None:
                events += self._open({
                    "id": new_id("fc"), "type": "function_call", "status": "in_progress", "call_id": piece.id,
                    "name": piece.name, "arguments": "",
                })  # fmt: skip
            if piece.arguments:
                self._last["arguments"] += piece.arguments
                events.append(self._about("response.function_call_arguments.delta", delta=piece.arguments))
        return events

    def open_message(self) -> list[bytes]:
        """Begins a message without text."""
        events = self._open({
            "id": new_id("msg"), "type": "message", "role": "assistant", "status": "in_progress", "content": []
        })  # fmt: skip
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._last["content"].append(part)
        return [*events, self._about("response.content_part.added", content_index=0, part=part)]

    def end(self, status: str) -> list[bytes]:
        """Ends the last item, which is a message without text if there is none at all."""
        events = [] if self.made else self.open_message()
        return [*events, *self._close(status)]

    @property
    def _last(self) -> dict[str, Any]:
        return self.made[-1]

    def _open(self, item: dict[str, Any]) -> list[bytes]:
        events = self._close("completed")
        self.made.append(item)
        self._is_open = True
        return [*events, self._event("response.output_item.added", output_index=len(self.made) - 1, item=item)]

    def _close(self, status: str) -> list[bytes]:
        if not self._is_open:
            return []
        self._is_open = False
        item = self._last
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            events = [
                self._about("response.output_text.done", content_index=0, text=part["text"], logprobs=[]),
                self._about("response.content_part.done", content_index=0, part=part),
            ]
        else:
            own = {"name": item["name"], "arguments": item["arguments"]}
            events = [self._about("response.function_call_arguments.done", **own)]
        return [*events, self._event("response.output_item.done", output_index=len(self.made) - 1, item=item)]

    def _about(self, kind: str, **body: Any) -> bytes:
        """An event of the last item."""
        return self._event(kind, item_id=self._last["id"], output_index=len(self.made) - 1, **body)
