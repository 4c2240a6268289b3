// Short messages, and deleting with undo.

import { $, create, hold, save, state } from "./items.js";
import { purge } from "./sending.js";

const UNDO_MILLISECONDS = 15_000;
const MESSAGE_MILLISECONDS = 4000;

let timer;
let endUndo = () => {};

/** Shows a message. `actions` maps the labels of its buttons to functions. */
export function toast(text = "", actions = {}) {
	clearTimeout(timer);
	const buttons = Object.entries(actions).map(([label, onclick]) =>
		create("button", { textContent: label, onclick, id: label.toLowerCase(), className: "quiet" }),
	);
	$("toast").replaceChildren(create("span", {}, text), ...buttons);
	$("toast").hidden = !text;
	if (text && !buttons.length) timer = setTimeout(toast, MESSAGE_MILLISECONDS);
}

/** Hides an item, and deletes it when the message disappears. `onUndo` is called if the user wants it back. */
export async function deleteItem(item, onUndo) {
	endUndo();
	const { entry } = item;
	entry.deleted = Date.now();
	const ended = new Promise((resolve) => {
		const timeout = setTimeout(() => endUndo(), UNDO_MILLISECONDS);
		endUndo = async () => {
			endUndo = () => {};
			clearTimeout(timeout);
			toast();
			if (entry.deleted) await forget(item);
			resolve();
		};
	});
	hold(item, ended);
	const undo = async () => {
		delete entry.deleted;
		endUndo();
		await save(item);
		onUndo();
	};
	toast(`Deleted: ${entry.name}`, { Undo: undo, Close: () => endUndo() });
	await save(item);
}

async function forget(item) {
	await purge(item.entry);
	state.items = state.items.filter((other) => other !== item);
	item.row.remove();
}
