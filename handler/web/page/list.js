// The list of recordings, and the search.

import { $, create, setText, state, whenText } from "./items.js";
import { shortStatus, statusClass } from "./status.js";
import { mark } from "./transcript.js";

const SNIPPET_CHARACTERS = 140;
const BEFORE_MATCH = 30;

export function createRow(item, onSelect) {
	const lines = ["name", "words", "when"].map((className) => create("span", { className }));
	const button = create("button", { className: "quiet", onclick: onSelect }, ...lines, create("small"));
	item.row = create("li", {}, button);
	drawRow(item);
	return item.row;
}

export function drawRow(item) {
	const { entry, row } = item;
	const button = row.firstChild;
	const [name, words, when, status] = button.children;
	setText(name, entry.name);
	setText(words, snippet(entry.transcript ?? "", query()));
	words.hidden = !entry.transcript;
	setText(when, whenText(entry));
	setText(status, shortStatus(item));
	status.className = statusClass(item);
	button.setAttribute("aria-current", String(item === state.selected));
	row.hidden = Boolean(entry.deleted) || !matches(item);
}

export const query = () => $("search").value.trim().toLowerCase();

const matches = ({ entry }) => `${entry.name}\n${entry.transcript ?? ""}`.toLowerCase().includes(query());

function snippet(text, wanted) {
	const flat = text.slice(0, 100_000).replace(/\s+/g, " ");
	const at = wanted ? flat.toLowerCase().indexOf(wanted) : -1;
	const start = at > BEFORE_MATCH ? flat.lastIndexOf(" ", at - BEFORE_MATCH) + 1 : 0;
	return (start ? "… " : "") + flat.slice(start, start + SNIPPET_CHARACTERS);
}

export function drawList() {
	for (const item of state.items) drawRow(item);
	const visible = state.items.filter(({ row }) => !row.hidden).length;
	mark("listed", $("recent").querySelectorAll(".name, .words"), query());
	setText($("none"), visible || !query() ? "" : "No recording contains these words.");
}
