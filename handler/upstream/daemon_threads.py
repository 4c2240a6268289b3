"""Threads that do not keep the process from ending.

At the end of a process, Python waits for the threads of a ThreadPoolExecutor.
"""

import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import Any, TypeVar

Result = TypeVar("Result")
_Task = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(Executor):
    """At most `most` threads, started when needed. They end when this executor is collected."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._started = 0
        self._lock = Lock()
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._idle = Semaphore(0)
        weakref.finalize(self, self._tasks.put, None)

    def submit(self, call: Callable[..., Result], /, *details: Any, **more: Any) -> Future[Result]:
        future: Future[Result] = Future()
        self._tasks.put((future, partial(call, *details, **more)))
        if not self._idle.acquire(blocking=False):
            self._start_one()
        return future

    def _start_one(self) -> None:
        with self._lock:
            if self._started == self._most:
                return
            self._started += 1
            name = f"{self._name}_{self._started}"
            Thread(target=_work, args=(self._tasks, self._idle), name=name, daemon=True).start()


def _work(tasks: "SimpleQueue[_Task | None]", idle: Semaphore) -> None:
    while (task := tasks.get()) is not None:
        future, call = task
        if future.set_running_or_notify_cancel():
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
        del task, future, call  # what they hold is not kept until the next task
        idle.release()
    tasks.put(None)  # for the other threads
