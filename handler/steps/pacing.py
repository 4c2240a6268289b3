"""How long the parts of a recording are, and how long the steps of a job wait."""

from dataclasses import dataclass

from handler.recordings.cutting import PART_SECONDS, TIMED_PART_SECONDS


@dataclass(frozen=True)
class Pacing:
    """Lengths and waiting times, in seconds.

    `part_seconds` is the length of a part, and `timed_part_seconds` that of a part whose text is
    aligned with the sound. `call_seconds` limits one request to the upstream.
    `first_backoff_seconds` is the first pause after a failed request, and `outage_seconds` the
    first pause after an outage of AWS; both double with each try. `turn_seconds` is how long a
    delivery waits for a busy upstream before its message goes back to the queue. `claim_seconds`
    is the visibility timeout of a message and the lifetime of its claim. A step renews both while
    it works, so a crash is noticed after that time.
    """

    part_seconds: float = PART_SECONDS
    timed_part_seconds: float = TIMED_PART_SECONDS
    call_seconds: float = 300.0
    first_backoff_seconds: float = 2.0
    outage_seconds: float = 60.0
    turn_seconds: float = 60.0
    claim_seconds: float = 90.0


DEFAULT_PACING = Pacing()
