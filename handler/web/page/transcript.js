// Shows, marks and edits a transcript.

import { joinTexts, transcriptText } from "./exports.js";
import { $, clock, create } from "./items.js";

const PAUSE_SECONDS = 1.8; // a longer pause starts a new paragraph
const PARAGRAPH_CHARACTERS = 420; // after this length, a paragraph ends with its sentence

let shown = {};
let sentences = [];
let spoken = null;

/** Draws a transcript, unless it is already shown. `partial` is the text of an unfinished job. */
export function drawTranscript(entry, { partial = "", editing, wanted, onSeek, onEdit }) {
	const text = editing ? "" : (entry.transcript ?? partial); // the fields contain the newest text
	const key = JSON.stringify([editing, text, wanted, entry.segments?.length]);
	if (shown.entry === entry && shown.key === key) return;
	shown = { entry, key };
	sentences = [];
	spoken = null;
	const isTimed = entry.transcript && entry.segments?.length;
	const draw = editing ? editors : isTimed ? paragraphs : plain;
	$("transcript").replaceChildren(...draw(entry, { partial, onSeek, onEdit }));
	$("transcript").hidden = !$("transcript").firstChild;
	const [first] = mark("found", [$("transcript")], editing ? "" : wanted);
	first?.startContainer.parentElement.scrollIntoView({ block: "nearest" });
}

function groupSegments(segments) {
	const groups = [];
	let characters = 0;
	for (const segment of segments) {
		const previous = groups.at(-1)?.at(-1);
		const pause = previous ? segment.start - previous.end : 0;
		const isFull = characters > PARAGRAPH_CHARACTERS && /[.!?。！？…]["'”»)]*\s*$/.test(previous?.text ?? "");
		if (!previous || pause > PAUSE_SECONDS || isFull || segment.speaker !== previous.speaker) {
			groups.push([]);
			characters = 0;
		}
		groups.at(-1).push(segment);
		characters += segment.text.length;
	}
	return groups;
}

const paragraphs = ({ segments }, { onSeek }) =>
	groupSegments(segments).map((group) => {
		const text = create("p");
		for (const segment of group) text.append(...sentence(segment, text.textContent, onSeek));
		return row(timeButton(group[0], onSeek), text);
	});

function sentence(segment, before, onSeek) {
	const onclick = () => getSelection().isCollapsed && onSeek(segment.start);
	const span = create("span", { textContent: segment.text.trim(), onclick });
	sentences.push({ ...segment, span });
	return [joinTexts([before, span.textContent]).slice(before.length, -span.textContent.length || undefined), span];
}

const row = (...children) => create("div", { className: "paragraph" }, ...children);

function timeButton({ start, speaker }, onSeek) {
	const textContent = clock(start) + (speaker ? ` ${speaker}` : "");
	const onclick = () => onSeek(start, true);
	return create("button", { className: "time quiet", textContent, ariaLabel: `Play from ${textContent}`, onclick });
}

const plain = (entry, { partial }) =>
	transcriptText(entry, partial)
		.split(/\n+/)
		.filter(Boolean)
		.map((line) => create("p", {}, line));

// Editing

function editors(entry, { onSeek, onEdit }) {
	if (!entry.segments?.length) {
		return [editor("Text", transcriptText(entry), (text) => onEdit(() => (entry.transcript = text)))];
	}
	return entry.segments.map((segment) => {
		const change = (text) => onEdit(() => (segment.text = text));
		return row(timeButton(segment, onSeek), editor(`Text at ${clock(segment.start)}`, segment.text.trim(), change));
	});
}

function editor(label, text, onChange) {
	const field = create("textarea", { rows: 1, value: text, ariaLabel: label });
	field.oninput = () => {
		grow(field);
		onChange(field.value);
	};
	requestAnimationFrame(() => grow(field));
	return field;
}

function grow(field) {
	field.style.height = "auto";
	field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
}

addEventListener("resize", () => $("transcript").querySelectorAll("textarea").forEach(grow));

// Playback and search

export function markSpoken(seconds, isPlaying) {
	const current = sentences.findLast(({ start }) => start <= seconds + 0.05);
	const span = current && seconds < current.end + 1 ? current.span : null;
	if (span === spoken) return;
	spoken?.classList.remove("spoken");
	span?.classList.add("spoken");
	spoken = span;
	if (span && isPlaying) span.scrollIntoView({ block: "nearest" });
}

/** Marks the searched words, where the browser has the CSS Custom Highlight API. Returns their ranges. */
export function mark(name, elements, wanted) {
	const ranges = wanted ? [...elements].flatMap((element) => findRanges(element, wanted)) : [];
	if (globalThis.Highlight) CSS.highlights.set(name, new Highlight(...ranges));
	return ranges;
}

function findRanges(root, wanted) {
	const ranges = [];
	const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const { data } = walker.currentNode;
		const text = data.toLowerCase();
		if (text.length !== data.length) continue;
		for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + 1)) {
			const range = new Range();
			range.setStart(walker.currentNode, at);
			range.setEnd(walker.currentNode, at + wanted.length);
			ranges.push(range);
		}
	}
	return ranges;
}
