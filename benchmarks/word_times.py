"""Measure the accuracy of the start times of words in synthetic speech.

    python -m benchmarks.word_times

The synthesizer reports the start of each word. Steno aligns the text with the audio in the same way
as the text of a model without timestamps. The text has no errors, the pronunciation is clear, and
there is no noise, so the times of natural speech are less accurate. `benchmarks.times` measures the
first words of lines in real speech.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from statistics import median, quantiles

from benchmarks.row import Row, table
from benchmarks.synthetic_speech import synthesize
from benchmarks.times import cut_recording, percentiles
from handler.jobs.parts import part_transcript
from handler.recordings.cutting import TIMED_PART_SECONDS, Part
from handler.recordings.speech_activity import SAMPLE_RATE
from handler.transcripts.transcript import Transcript, WordTime
from handler.transcripts.words import Word, split_words

WORDS_PER_MINUTE = (130, 150, 170, 190)
# The first paragraphs are from "Alice's Adventures in Wonderland" and "Der Froschkönig", which are
# in the public domain.
TEXTS = {
    "en": """
Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing
to do: once or twice she had peeped into the book her sister was reading, but it had no pictures
or conversations in it, “and what is the use of a book,” thought Alice “without pictures or
conversations?” So she was considering in her own mind (as well as she could, for the hot day made
her feel very sleepy and stupid), whether the pleasure of making a daisy-chain would be worth the
trouble of getting up and picking the daisies, when suddenly a White Rabbit with pink eyes ran
close by her.

Good morning, everybody. Thank you for coming. We have three topics today: the budget, the new
office, and the date of the next release. Let me begin with the budget. Last year we spent 48
thousand on travel, which was more than we had planned. Why was that? Two of our customers moved,
and the flights became expensive. This year, most of the meetings will be online, so I expect about
half of that amount. Any questions? No? Fine. The new office is on the second floor of the old
railway station. It has large windows, a quiet room for telephone calls, and enough space for 25
people. However, the heating does not work yet, and nobody knows when the engineer will come. If it
is still broken in November, we stay here until spring. Finally, the release. Everything that we
promised is finished, except the search. I would rather wait for another week than deliver
something that fails on the first day. Does anybody disagree? Then we will decide on Friday, after
the last test.
""",
    "de": """
In den alten Zeiten, wo das Wünschen noch geholfen hat, lebte ein König, dessen Töchter waren alle
schön, aber die jüngste war so schön, dass die Sonne selber, die doch so vieles gesehen hat, sich
verwunderte, so oft sie ihr ins Gesicht schien. Nahe bei dem Schlosse des Königs lag ein großer
dunkler Wald, und in dem Walde unter einer alten Linde war ein Brunnen. Wenn nun der Tag recht heiß
war, so ging das Königskind hinaus in den Wald und setzte sich an den Rand des kühlen Brunnens; und
wenn sie Langeweile hatte, so nahm sie eine goldene Kugel, warf sie in die Höhe und fing sie
wieder; und das war ihr liebstes Spielwerk.

Guten Morgen zusammen. Schön, dass alle da sind. Wir haben heute drei Themen: das Budget, das neue
Büro und den Termin der nächsten Version. Ich beginne mit dem Budget. Im letzten Jahr haben wir 48
Tausend Euro für Reisen ausgegeben, also mehr als geplant. Woran lag das? Zwei unserer Kunden sind
umgezogen, und die Flüge wurden teurer. In diesem Jahr finden die meisten Besprechungen online
statt, deshalb rechne ich mit der Hälfte. Gibt es Fragen? Nein? Gut. Das neue Büro liegt im zweiten
Stock des alten Bahnhofs. Es hat große Fenster, einen ruhigen Raum für Telefongespräche und genug
Platz für 25 Personen. Allerdings funktioniert die Heizung noch nicht, und niemand weiß, wann der
Handwerker kommt. Wenn sie im November immer noch kaputt ist, bleiben wir bis zum Frühling hier.
Zum Schluss die neue Version. Alles, was wir versprochen haben, ist fertig, nur die Suche fehlt.
Ich warte lieber noch eine Woche, als etwas auszuliefern, das schon am ersten Tag nicht
funktioniert. Ist jemand dagegen? Dann entscheiden wir am Freitag, nach dem letzten Test.
""",
}


@cache
def synthetic_errors(language: str, words_per_minute: int) -> list[float]:
    """Return the absolute errors of the start times of words in synthetic speech, in seconds."""
    text = TEXTS[language]
    content, starts = synthesize(text, language, words_per_minute)
    words = split_words(text)
    errors: list[float] = []
    with cut_recording(content, TIMED_PART_SECONDS) as parts:
        for part in parts:
            spoken = _words_before(words, starts, (part.start + part.samples) / SAMPLE_RATE)
            words = words[len(spoken) :]
            for word, aligned in zip(spoken, _align(text, spoken, part), strict=True):
                start = _start(word, starts)
                if start is not None:
                    errors.append(abs(aligned.start - start))
    assert not words
    return errors


def _words_before(
    words: Sequence[Word], starts: Mapping[int, float], seconds: float
) -> Sequence[Word]:
    """Return the words up to the first one that starts later."""
    for index, word in enumerate(words):
        start = _start(word, starts)
        if start is not None and start >= seconds:
            return words[:index]
    return words


def _start(word: Word, starts: Mapping[int, float]) -> float | None:
    """Return the time of the word's first letter. It may follow an opening quotation mark."""
    letter = next(index for index, character in enumerate(word.text) if character.isalnum())
    return starts.get(word.start + letter)


def _align(text: str, words: Sequence[Word], part: Part) -> list[WordTime]:
    transcript = Transcript(text[words[0].start : words[-1].end], "synthetic")
    segments = part_transcript(part, transcript).segments
    return [word for segment in segments for word in segment.words]


def rows() -> Iterator[Row]:
    errors = [
        error
        for language in TEXTS
        for words_per_minute in WORDS_PER_MINUTE
        for error in synthetic_errors(language, words_per_minute)
    ]
    yield Row("error of word starts in synthetic speech, median", "s", median(errors), 0.1, 0.05)
    yield Row(
        "error of word starts in synthetic speech, 90th percentile",
        "s",
        quantiles(errors, n=10)[-1],
        0.3,
        0.15,
    )


def main() -> None:
    print("Errors of the start times of words, median / 90th percentile in seconds")
    for language in TEXTS:
        for words_per_minute in WORDS_PER_MINUTE:
            errors = synthetic_errors(language, words_per_minute)
            print(
                f"  {language}, {words_per_minute} words per minute, {len(errors)} words:"
                f" {percentiles(errors)}",
                flush=True,
            )
    print(table(rows()))


if __name__ == "__main__":
    main()
