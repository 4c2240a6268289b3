// Draws icons. The attribute data-icon of an element is the name of its icon.

const FIVE = "M13.9 9.5h-3.2l-.3 3c2.7-1 4 .2 3.9 1.6-.1 1.9-2.5 2.5-4.3 1.3";

const PATHS = {
	file: "M12 16V4m-5 5 5-5 5 5M4 16v4h16v-4",
	options: "M4 7h8m6 0h2M4 17h2m6 0h8M12 7a3 3 0 1 0 6 0 3 3 0 1 0-6 0M6 17a3 3 0 1 0 6 0 3 3 0 1 0-6 0",
	search: "M4 11a7 7 0 1 0 14 0 7 7 0 1 0-14 0M16 16l5 5",
	back: "m14.5 5-7 7 7 7",
	copy: "M9 9h11v11H9zM5 15H4V4h11v1",
	edit: "m4 20 1-4L16.5 4.5l3 3L8 19z",
	download: "M12 4v11m-5-5 5 5 5-5M4 20h16",
	more: "M5 12h.01M12 12h.01M19 12h.01",
	delete: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5m4-5v5",
	play: "M8 5v14l11-7z",
	pause: "M7 5h3.5v14H7zm6.5 0H17v14h-3.5z",
	rewind: `M4 4v4h4M4.5 8a8.5 8.5 0 1 1-.9 6${FIVE}`,
	forward: `M20 4v4h-4M19.5 8a8.5 8.5 0 1 0 .9 6${FIVE}`,
	check: "m5 12.5 4.5 4.5L19 7.5",
	lock: "M5 11h14v9H5zM8 11V8a4 4 0 0 1 8 0v3",
	server: "M4 4h16v7H4zM4 13h16v7H4zM8 7.5h.01M8 16.5h.01",
};

export function setIcon(element, name) {
	const present = element.querySelector(".icon");
	if (present?.matches(`.${name}`)) return;
	present?.remove();
	const icon = `<svg class="icon ${name}" aria-hidden="true" viewBox="0 0 24 24"><path d="${PATHS[name]}"/></svg>`;
	element.insertAdjacentHTML("afterbegin", icon);
}

for (const element of document.querySelectorAll("[data-icon]")) setIcon(element, element.dataset.icon);
