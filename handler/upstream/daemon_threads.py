"""A thread pool whose threads do not delay the exit of the process.

With a ThreadPoolExecutor, Python waits for the threads before it exits.
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
    """Runs calls in at most `max_threads` daemon threads, which are started on demand.

    The threads end when this executor is garbage-collected.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self._started = 0
        self._lock = Lock()
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._idle = Semaphore(0)
        weakref.finalize(self, self._tasks.put, None)

    def submit(self, call: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        future: Future[Result] = Future()
        self._tasks.put((future, partial(call, *args, **kwargs)))
        if not self._idle.acquire(blocking=False):
            self._start_thread()
        return future

    def _start_thread(self) -> None:
        with self._lock:
            if self._started == self._max_threads:
                return
            self._started += 1
            name = f"{self._name}_{self._started}"
            Thread(
                target=_run_tasks, args=(self._tasks, self._idle), name=name, daemon=True
            ).start()


def _run_tasks(tasks: "SimpleQueue[_Task | None]", idle: Semaphore) -> None:
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
        del task, future, call  # so that their objects are freed before the next task
        idle.release()
    tasks.put(None)  # so that the other threads end too
