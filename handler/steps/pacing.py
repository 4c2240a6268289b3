"""Defines how long parts are, and how long the steps of a job wait."""

from dataclasses import dataclass

from handler.recordings.cutting import PART_SECONDS, TIMED_PART_SECONDS


@dataclass(frozen=True)
class Pacing:
    """Part lengths, timeouts and waiting times, in seconds.

    - `part_seconds`: the length of a part.
    - `timed_part_seconds`: the length of a part whose text is aligned with the audio.
    - `call_seconds`: the timeout of a request to the upstream.
    - `first_backoff_seconds`: the pause after the first failed request. It doubles with each
      delivery.
    - `outage_seconds`: the first pause if AWS is unavailable. It doubles with each delivery.
    - `turn_seconds`: how long a delivery waits for a busy upstream before its message is returned
      to the queue.
    - `claim_seconds`: the visibility timeout of a message, and how long its claim is valid. A step
      renews both while it is running. If the step crashes, another delivery can start after both
      have expired.
    """

    part_seconds: float = PART_SECONDS
    timed_part_seconds: float = TIMED_PART_SECONDS
    call_seconds: float = 300.0
    first_backoff_seconds: float = 2.0
    outage_seconds: float = 60.0
    turn_seconds: float = 60.0
    claim_seconds: float = 90.0


DEFAULT_PACING = Pacing()
