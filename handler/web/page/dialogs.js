// The dialogs, the menus, and the options that the browser remembers.

import { $ } from "./items.js";

const LANGUAGES = "ar bg ca cs da de el en es et fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv th tr uk ur vi zh";

/** Returns false if the user cancels the dialog. */
export function openDialog(dialog) {
	dialog.returnValue = "";
	dialog.showModal();
	return new Promise((resolve) => {
		dialog.onclose = () => resolve(Boolean(dialog.returnValue));
	});
}

export function confirmAgain(reason) {
	if ($("billing").open) return Promise.resolve(false);
	$("billing-text").textContent = reason;
	return openDialog($("billing"));
}

$("pay").onclick = () => $("billing").close("yes");
$("refuse").onclick = () => $("billing").close();

// Menus

for (const menu of document.querySelectorAll(".menu")) {
	menu.onclick = ({ target }) => {
		if (!target.closest("div button")) return;
		if (menu.contains(document.activeElement)) menu.querySelector("summary").focus();
		menu.open = false;
	};
	menu.onkeydown = ({ key }) => {
		if (key !== "Escape" || !menu.open) return;
		menu.open = false;
		menu.querySelector("summary").focus();
	};
}
document.addEventListener("click", ({ target }) => {
	for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(target)) menu.open = false;
});

// Options

const languageNames = new Intl.DisplayNames(undefined, { type: "language" });
const languages = LANGUAGES.split(" ").map((code) => [languageNames.of(code), code]);
for (const [name, code] of languages.sort(([a], [b]) => a.localeCompare(b))) $("language").append(new Option(name, code));

function remember(id, key, property) {
	$(id)[property] = property === "checked" ? Boolean(localStorage.getItem(key)) : (localStorage.getItem(key) ?? "");
	$(id).addEventListener("change", () => localStorage.setItem(key, $(id)[property] || ""));
}

remember("language", "language", "value");
remember("keywords", "keywords", "value");
remember("delete-audio", "deleteAudio", "checked");
remember("notify", "notify", "checked");

$("options").onclick = () => openDialog($("settings"));
$("done").onclick = () => $("settings").close();
$("notify").addEventListener("change", async () => {
	if (!$("notify").checked || (await globalThis.Notification?.requestPermission()) === "granted") return;
	$("notify").checked = false;
	localStorage.setItem("notify", "");
});

export const chosenOptions = () => ({
	language: $("language").value,
	keywords: $("keywords").value.split(/[,\n]/).map((word) => word.trim()).filter(Boolean),
});
