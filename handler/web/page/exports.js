// Renders transcripts as text, subtitles and JSON, and saves files.

const COLUMNS = 42; // the usual limit of a line
const CUE_SECONDS = 7;
const NO_SPACES = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u;

/** Joins texts with spaces, except in scripts without spaces. */
export function joinTexts(texts) {
	let joined = "";
	for (const text of texts.map((text) => text.trim()).filter(Boolean)) {
		const needsSpace = joined && !(NO_SPACES.test(joined.at(-1)) || NO_SPACES.test(text[0]));
		joined += (needsSpace ? " " : "") + text;
	}
	return joined;
}

export function transcriptText({ transcript, segments, edited }, partial = "") {
	return edited && segments?.length ? joinTexts(segments.map(({ text }) => text)) : (transcript ?? partial);
}

export function toJson(entry) {
	const { name, created, language, model, duration, segments } = entry;
	const about = { name, created: new Date(created).toISOString(), language, model, duration };
	return JSON.stringify({ ...about, transcript: transcriptText(entry), segments }, null, 2);
}

export function toSubtitles(segments, format) {
	const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
	const cues = segments.flatMap(toCues).map(({ start, end, text }, index) => {
		const times = `${stamp(start)} --> ${stamp(end)}`;
		const lines = splitEvenly(text, text.length > COLUMNS ? 2 : 1).map((line) => line.trim()).join("\n");
		if (format === "vtt") return `${times}\n${escape(lines)}\n`;
		return `${index + 1}\n${times.replaceAll(".", ",")}\n${lines}\n`;
	});
	return (format === "vtt" ? "WEBVTT\n\n" : "") + cues.join("\n");
}

const stamp = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 23);

/** Splits a long segment into cues. The time of a cue is proportional to its text. */
function toCues({ start, end, text }) {
	const flat = text.replace(/\s+/g, " ").trim();
	if (!flat) return [];
	const count = Math.max(1, Math.ceil(flat.length / (2 * COLUMNS)), Math.ceil((end - start) / CUE_SECONDS));
	const at = (characters) => start + ((end - start) * characters) / flat.length;
	let done = 0;
	return splitEvenly(flat, count).map((piece) => {
		const from = done;
		done += piece.length;
		return { start: at(from), end: at(done), text: piece.trim() };
	});
}

/** Splits a text into at most `count` pieces of similar length, between words if it has spaces. */
function splitEvenly(text, count) {
	const pieces = [""];
	const words = text.match(NO_SPACES.test(text) ? /\S\s?/gu : /\S+\s?/gu);
	const size = text.length / count;
	let done = 0;
	for (const word of words) {
		if (pieces.at(-1) && done + word.length / 2 > size * pieces.length && pieces.length < count) pieces.push("");
		pieces[pieces.length - 1] += word;
		done += word.length;
	}
	return pieces;
}

/** Saves a file with the name of the entry. */
export function download({ name }, extension, content) {
	const link = document.createElement("a");
	link.href = URL.createObjectURL(new Blob([content], { type: content.type ?? "text/plain" }));
	link.download = `${name.replace(/\.\w{1,5}$/, "").replace(/[/\\:]/g, "-")}.${extension}`;
	link.click();
	setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** The extension of a file: that of its name, or that of its type. */
export function audioExtension({ name, type = "" }) {
	const subtype = /^\w+\/([\w-]+)/.exec(type)?.[1] ?? "webm";
	return /\.(\w{1,5})$/.exec(name)?.[1] ?? { mp4: "m4a", mpeg: "mp3" }[subtype] ?? subtype;
}
