"""Questions to the head, and their answers: names of actors, lists, key-value."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from nbray.exceptions import HeadUnavailableError, RaySystemError
from nbray.owner.runtime import Runtime
from nbray.wire.messages import ActorFound, ActorRejected, Answer, Ask, Message

#: A head that does not answer for this long is not going to: it does nothing that takes time.
ANSWER_S = 30.0


class Question:
    """One that was asked. `answer` is None until it came."""

    __slots__ = ("answer", "gate", "request")

    def __init__(self, request: int) -> None:
        self.request = request
        self.gate = threading.Lock()
        self.gate.acquire()
        self.answer: Any = None


class Questions:
    """Requests of this process that wait for an answer, by number."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._open: dict[int, Question] = {}
        self._numbers = itertools.count(1)

    def open(self) -> Question:
        self._runtime.refuse_inside()
        question = Question(next(self._numbers))
        self._open[question.request] = question
        return question

    def wait(self, question: Question, patience_s: float = ANSWER_S) -> Any:
        """The answer. Raises HeadUnavailableError after `patience_s`; interruptible."""
        try:
            if not question.gate.acquire(timeout=patience_s):
                raise HeadUnavailableError(
                    f"the head did not answer within {patience_s:g} s; `nbray status` shows whether it lives"
                )
            if question.answer is None:
                raise HeadUnavailableError(f"{self._runtime.why_gone or 'the cluster is gone'}: the head cannot answer")
        finally:
            self._open.pop(question.request, None)
        return question.answer

    def ask(self, what: str, arguments: dict[str, Any], patience_s: float = ANSWER_S) -> Any:
        """Ask the head and wait. Raises RaySystemError with its words when it refuses."""
        question = self.open()
        runtime = self._runtime
        runtime.post(runtime.state.calls.head, Ask(question.request, runtime.me, what, arguments))
        answer = self.wait(question, patience_s)
        if answer.error:
            raise RaySystemError(f"the head refused {what!r}: {answer.error}")
        return answer.result

    def answered(self, message: Message) -> None:
        """From the I/O thread."""
        if isinstance(message, Answer | ActorFound | ActorRejected):
            question = self._open.get(message.request)
            if question is not None:
                self.settle(question, message)

    def settle(self, question: Question, answer: Any) -> None:
        if question.answer is None:
            question.answer = answer
            question.gate.release()

    def abandon(self) -> None:
        """The head is gone: nobody answers."""
        for question in list(self._open.values()):
            if question.answer is None and question.gate.locked():
                question.gate.release()
