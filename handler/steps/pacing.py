"""How long the parts of a recording are, and how long the steps of a job wait."""

from dataclasses import dataclass

from handler.recordings.cutting import PART_SECONDS, TIMED_PART_SECONDS


@dataclass(frozen=True)
class Pacing:
    """All in seconds.

    `part` is the length of a part, `timed_part` that of one whose text is aligned with the sound.
    `deadline` is how long the upstream may take for one part, `pause` the first pause after a
    failure; it doubles each time, as does `outage`, the first pause after an outage of AWS. `wait`
    is how long a delivery waits for a busy upstream before its message goes back. `hold` is how
    long a message and its claim are held: a step renews both while it works, so a crash is noticed
    after that time.
    """

    part: float = PART_SECONDS
    timed_part: float = TIMED_PART_SECONDS
    deadline: float = 300.0
    pause: float = 2.0
    outage: float = 60.0
    wait: float = 60.0
    hold: float = 90.0


USUAL = Pacing()
