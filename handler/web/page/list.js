// The list of recordings, and the search.

import { $, clock, dateTime, state } from "./items.js";
import { shortStatus } from "./status.js";

const SNIPPET_CHARACTERS = 140;
const BEFORE_MATCH = 30;

/** Creates the row of an item. */
export function createRow(item, onSelect) {
	const row = document.createElement("li");
	const button = row.appendChild(document.createElement("button"));
	for (const name of ["name", "words", "when"]) {
		button.appendChild(document.createElement("span")).className = name;
	}
	button.append(document.createElement("small"));
	button.onclick = onSelect;
	item.row = row;
	drawRow(item);
	return row;
}

export function drawRow(item) {
	const { entry, row, error, offline, controller } = item;
	const button = row.firstChild;
	const [name, words, when, status] = button.children;
	setText(name, entry.name);
	setText(words, snippet(entry.transcript ?? "", query()));
	words.hidden = !entry.transcript;
	setText(when, [dateTime(entry.created), entry.duration ? clock(entry.duration) : ""].filter(Boolean).join(" · "));
	setText(status, shortStatus(item));
	status.className = error ? "bad" : offline ? "warn" : controller ? "busy" : "";
	button.setAttribute("aria-current", String(item === state.selected));
	row.hidden = Boolean(entry.deleted) || !matches(item);
}

/** Unlike an assignment, keeps the text node if the text has not changed. */
function setText(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

export const query = () => $("search").value.trim().toLowerCase();

const matches = ({ entry }) => `${entry.name}\n${entry.transcript ?? ""}`.toLowerCase().includes(query());

/** The first words, or the words around a match. */
function snippet(text, wanted) {
	const flat = text.slice(0, 100_000).replace(/\s+/g, " ");
	const at = wanted ? flat.toLowerCase().indexOf(wanted) : -1;
	const start = at > BEFORE_MATCH ? flat.lastIndexOf(" ", at - BEFORE_MATCH) + 1 : 0;
	return (start ? "… " : "") + flat.slice(start, start + SNIPPET_CHARACTERS);
}

/** Shows the rows that match the search. */
export function drawList() {
	for (const item of state.items) drawRow(item);
	const visible = state.items.filter(({ row }) => !row.hidden).length;
	setText($("none"), visible || !query() ? "" : "No recording contains these words.");
}
