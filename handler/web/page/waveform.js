// Draws the level of the microphone as bars that move from right to left.

const BAR_PIXELS = 3;
const STEP_PIXELS = 6;
const LEVEL_MILLISECONDS = 100; // recorder.js measures ten levels per second

/** Draws until `end()` is called. The newest level is at the right. */
export function createWaveform(canvas) {
	const context = canvas.getContext("2d");
	const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
	const levels = [];
	let addedAt = 0;
	let frame = 0;

	function draw() {
		frame = requestAnimationFrame(draw);
		const { clientWidth: width, clientHeight: height } = canvas;
		const pixels = Math.round(width * devicePixelRatio);
		if (canvas.width !== pixels) {
			canvas.width = pixels; // slow in Firefox
			canvas.height = height * devicePixelRatio;
			context.scale(devicePixelRatio, devicePixelRatio);
		}
		context.clearRect(0, 0, width, height);
		context.fillStyle = getComputedStyle(canvas).color;
		const moved = isStill ? 1 : Math.min(1, (performance.now() - addedAt) / LEVEL_MILLISECONDS);
		for (let index = 0; index <= width / STEP_PIXELS; index++) {
			const level = levels.at(-1 - index) ?? 0;
			const size = Math.max(BAR_PIXELS, level ** 2.5 * height); // speech uses the upper half of the levels
			const left = width - (index + moved) * STEP_PIXELS;
			context.globalAlpha = index < levels.length ? 1 : 0.25;
			context.fillRect(left, (height - size) / 2, BAR_PIXELS, size);
		}
	}

	function add(level) {
		levels.push(level);
		addedAt = performance.now();
	}

	draw();
	return { add, end: () => cancelAnimationFrame(frame) };
}
