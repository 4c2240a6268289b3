// Draws the level of the microphone as bars that move from right to left.

const BAR_PIXELS = 3;
const STEP_PIXELS = 6;
const LEVEL_MILLISECONDS = 100; // recorder.js measures ten levels per second

export function createWaveform(canvas) {
	const levels = [];
	const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
	let addedAt = 0;
	let frame = 0;
	const draw = () => {
		const moved = isStill ? 1 : Math.min(1, (performance.now() - addedAt) / LEVEL_MILLISECONDS);
		drawBars(canvas, levels, moved);
		frame = requestAnimationFrame(draw);
	};
	return {
		start: draw,
		add(level) {
			levels.push(level);
			addedAt = performance.now();
		},
		end: () => cancelAnimationFrame(frame),
	};
}

/** Draws the newest level at the right. `moved` is a part of a step, from 0 to 1. */
function drawBars(canvas, levels, moved) {
	const [width, height] = fit(canvas);
	const context = canvas.getContext("2d");
	context.clearRect(0, 0, width, height);
	context.fillStyle = getComputedStyle(canvas).color;
	const count = Math.ceil(width / STEP_PIXELS) + 1;
	for (let index = 0; index < count; index++) {
		const level = levels[levels.length - 1 - index] ?? 0;
		const size = Math.max(BAR_PIXELS, loudness(level) * height);
		const left = width - (index + moved) * STEP_PIXELS;
		context.globalAlpha = index < levels.length ? 1 : 0.25;
		context.beginPath();
		context.roundRect(left, (height - size) / 2, BAR_PIXELS, size, BAR_PIXELS / 2);
		context.fill();
	}
}

/** Speech uses the upper half of the levels, so the lower half is drawn small. */
const loudness = (level) => level ** 2.5;

function fit(canvas) {
	const { clientWidth: width, clientHeight: height } = canvas;
	const scale = devicePixelRatio || 1;
	if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
		canvas.width = Math.round(width * scale);
		canvas.height = Math.round(height * scale);
	}
	canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
	return [width, height];
}
