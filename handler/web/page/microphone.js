// Records from the microphone: the clock, the waveform, pausing, and storing each chunk at once.

import { $, changed, clock, onSaveError, save, showAlert, state } from "./items.js";
import * as storage from "./kept.js";
import { record } from "./recorder.js";
import { createWaveform } from "./waveform.js";

const CLOCK_MILLISECONDS = 200;
const SAVING_MILLISECONDS = 5000; // maximum wait for IndexedDB

/**
 * Starts to record. `onItem(type)` must create the item when the first chunk arrives, and return it.
 * `onChange` is called when the recording starts, pauses, resumes and ends, `onEnd(item)` when it is stored.
 */
export async function startRecording({ onItem, onChange, onEnd }) {
	let saving = Promise.resolve();
	let item = null;
	const wave = createWaveform($("wave"));
	const recording = await record({
		onLevel(level) {
			$("level").value = level;
			if (!state.recording?.paused) wave.add(level);
		},
		onChunk(chunk) {
			if (!item) {
				item = onItem(chunk.type);
				Object.assign(state.recording ?? {}, { item });
				hold(item, recording.finished);
				onChange();
			}
			saving = saving.then(() => store(item, chunk)).catch(onSaveError);
		},
	});
	state.recording = Object.assign(recording, { paused: false, item, onChange });
	navigator.storage?.persist?.().catch(() => {}); // ask the browser not to evict recordings
	const stopClock = runClock();
	const unlock = await keepScreenOn();
	onChange();
	finish(recording, async (blob, error) => {
		const seconds = stopClock();
		wave.end();
		unlock();
		state.recording = null;
		onChange();
		if (!item) return error && showAlert(error);
		await Promise.race([saving, new Promise((resolve) => setTimeout(resolve, SAVING_MILLISECONDS))]);
		Object.assign(item, { blob, error });
		item.entry.duration = seconds;
		await save(item);
		changed(item);
		onEnd(item);
	});
}

const finish = (recording, end) =>
	recording.finished.then(
		(blob) => end(blob, null),
		(error) => end(error.recording, error),
	);

async function store(item, chunk) {
	await storage.addChunk(item.entry, await chunk.arrayBuffer());
	if (item.stored) return;
	await storage.save(item.entry);
	item.stored = true;
}

/** Holds a lock, so that another tab does not take this item for one that is finished. */
export const hold = (item, promise) => navigator.locks?.request(item.entry.id, () => promise.catch(() => {}));

/** Phones stop recording when they go to sleep. */
async function keepScreenOn() {
	const lock = await navigator.wakeLock?.request("screen").catch(() => null);
	return () => lock?.release();
}

export function togglePause() {
	const { recording } = state;
	recording.paused = !recording.paused;
	if (recording.paused) recording.pause();
	else recording.resume();
	recording.onChange();
}

/** Runs the clock. Returns a function that stops it and returns the recorded seconds. */
function runClock() {
	let seconds = 0;
	let last = performance.now();
	const tick = () => {
		const now = performance.now();
		if (!state.recording?.paused) seconds += (now - last) / 1000;
		last = now;
		$("clock").textContent = clock(seconds);
	};
	$("clock").textContent = clock(0);
	const timer = setInterval(tick, CLOCK_MILLISECONDS);
	return () => (clearInterval(timer), seconds);
}
