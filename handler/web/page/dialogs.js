// The dialogs, the menus, and the options that the browser remembers.

import { $ } from "./items.js";

const LANGUAGES = "ar bg ca cs da de el en es et fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv th tr uk ur vi zh";

/** Returns whether the user closes the dialog with its button "yes". */
export function openDialog(dialog) {
	dialog.returnValue = "";
	dialog.showModal();
	return new Promise((resolve) => (dialog.onclose = () => resolve(dialog.returnValue === "yes")));
}

export async function confirmAgain(reason) {
	if ($("billing").open) return false;
	$("billing-text").textContent = reason;
	return openDialog($("billing"));
}

// Menus

for (const menu of document.querySelectorAll(".menu")) {
	const close = () => {
		if (menu.contains(document.activeElement)) menu.querySelector("summary").focus();
		menu.open = false;
	};
	menu.onclick = ({ target }) => target.closest("div button") && close();
	menu.onkeydown = ({ key }) => key === "Escape" && close();
	document.addEventListener("click", ({ target }) => menu.contains(target) || close());
}

// Options

$("data").append(document.querySelector(".facts").cloneNode(true));

const languageNames = new Intl.DisplayNames(undefined, { type: "language" });
const languages = LANGUAGES.split(" ").map((code) => [languageNames.of(code), code]);
for (const [name, code] of languages.sort(([a], [b]) => a.localeCompare(b))) $("language").append(new Option(name, code));

function remember(key, field, property) {
	field[property] = localStorage.getItem(key) ?? "";
	field.addEventListener("change", () => localStorage.setItem(key, field[property] || ""));
}

remember("language", $("language"), "value");
remember("keywords", $("keywords"), "value");
remember("deleteAudio", $("delete-audio"), "checked");
remember("notify", $("notify"), "checked");

$("options").onclick = () => openDialog($("settings"));
$("notify").addEventListener("change", async () => {
	if (!$("notify").checked || (await globalThis.Notification?.requestPermission()) === "granted") return;
	$("notify").checked = false;
	localStorage.setItem("notify", "");
});

export const chosenOptions = () => ({
	language: $("language").value,
	keywords: $("keywords").value.split(/[,\n]/).map((word) => word.trim()).filter(Boolean),
});
