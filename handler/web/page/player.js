// The audio player. It also plays recordings of MediaRecorder, whose files do not contain their duration.

import { setIcon } from "./icons.js";
import { $, clock } from "./items.js";

const SKIP_SECONDS = 5;
const SPEEDS = [1, 1.25, 1.5, 2, 0.75];
const BEYOND_THE_END = 1e7; // in seconds. Seeking there makes the browser measure the duration

const sound = $("sound");
let loaded = null;
let known = 0;
let isMeasuring = false;
let callbacks = {};

/** Loads a recording, or nothing. `duration` is its length in seconds if that is known. */
export function loadPlayer(blob, duration, { onTime, onDuration } = {}) {
	callbacks = { onTime, onDuration };
	if (blob === loaded) return;
	sound.pause();
	URL.revokeObjectURL(sound.src);
	sound.removeAttribute("src");
	loaded = blob;
	known = duration ?? 0;
	isMeasuring = false;
	$("player").hidden = !blob;
	if (blob) sound.src = URL.createObjectURL(blob);
	draw();
}

export const isLoaded = () => !$("player").hidden;

export function togglePlay() {
	if (sound.paused) sound.play().catch(() => {});
	else sound.pause();
}

export const rewind = () => seek(sound.currentTime - SKIP_SECONDS);

export const forward = () => seek(sound.currentTime + SKIP_SECONDS);

export function seek(seconds, play = false) {
	sound.currentTime = Math.min(Math.max(0, seconds), length() || seconds);
	if (play && sound.paused) togglePlay();
	draw();
}

const length = () => (Number.isFinite(sound.duration) && !isMeasuring ? sound.duration : known);

sound.onloadedmetadata = () => {
	if (Number.isFinite(sound.duration) || !sound.seekable.length) return;
	isMeasuring = true;
	sound.currentTime = BEYOND_THE_END;
};

sound.ondurationchange = () => {
	if (!Number.isFinite(sound.duration)) return;
	if (isMeasuring) {
		isMeasuring = false;
		sound.currentTime = 0;
	}
	known = sound.duration;
	callbacks.onDuration?.(known);
	draw();
};

// The browser cannot play this format. The file can still be downloaded.
sound.onerror = () => ($("player").hidden = true);

sound.ontimeupdate = sound.onplay = sound.onpause = sound.onended = draw;

function draw() {
	if (isMeasuring) return;
	const [seconds, total] = [sound.currentTime, length()];
	$("elapsed").textContent = clock(seconds);
	$("total").textContent = clock(total);
	$("position").max = total || 1;
	$("position").value = seconds;
	$("position").ariaValueText = `${clock(seconds)} of ${clock(total)}`;
	const isPlaying = !sound.paused;
	$("play").ariaLabel = isPlaying ? "Pause" : "Play";
	setIcon($("play"), isPlaying ? "pause" : "play");
	callbacks.onTime?.(seconds, isPlaying);
}

$("play").onclick = togglePlay;
$("rewind").onclick = rewind;
$("forward").onclick = forward;
$("position").oninput = () => seek(Number($("position").value));
$("speed").onclick = () => {
	const speed = SPEEDS[(SPEEDS.indexOf(sound.playbackRate) + 1) % SPEEDS.length];
	sound.playbackRate = sound.defaultPlaybackRate = speed;
	$("speed").textContent = `${speed}×`;
	$("speed").ariaLabel = `Speed: ${speed}`;
};
