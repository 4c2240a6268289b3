// What this browser keeps, so that no crash, reload or dead connection loses a recording: IndexedDB.
// An entry is {id, name, created, language, format, job, transcript}; the bytes of its recording are in `chunks`.

let opened;

/** Anew where it could not be opened, or was closed behind the page's back. */
function open() {
	opened ??= new Promise((resolve, reject) => {
		const request = indexedDB.open("steno", 1);
		request.onupgradeneeded = () => {
			request.result.createObjectStore("entries", { keyPath: "id" });
			request.result.createObjectStore("chunks", { autoIncrement: true }).createIndex("entry", "entry");
		};
		request.onsuccess = () => resolve(request.result);
		request.onerror = () => {
			opened = null;
			reject(request.error);
		};
	}).then((database) => Object.assign(database, { onclose: () => (opened = null) }));
	return opened;
}

async function within(mode, work) {
	const transaction = (await open()).transaction(["entries", "chunks"], mode);
	const request = work(transaction.objectStore("entries"), transaction.objectStore("chunks"));
	return new Promise((resolve, reject) => {
		transaction.oncomplete = () => resolve(request?.result);
		transaction.onabort = () => reject(transaction.error);
	});
}

/** The newest first. */
export const entries = async () =>
	(await within("readonly", (kept) => kept.getAll())).sort((a, b) => b.created - a.created);

export const save = (entry) => within("readwrite", (kept) => kept.put(entry));

/** Bytes and not a Blob, which Safari has lost more than once. */
export const addChunk = (entry, bytes) => within("readwrite", (_, chunks) => chunks.add({ entry: entry.id, bytes }));

/** The recording, or null where there is none (any more). */
export async function recording(entry) {
	const found = await within("readonly", (_, chunks) => chunks.index("entry").getAll(entry.id));
	return found.length ? new Blob(found.map(({ bytes }) => bytes), { type: entry.type }) : null;
}

/** Its transcript for its recording; both or neither. */
export const finish = (entry) =>
	within("readwrite", (kept, chunks) => {
		kept.put(entry);
		drop(chunks, entry);
	});

export const remove = (entry) =>
	within("readwrite", (kept, chunks) => {
		kept.delete(entry.id);
		drop(chunks, entry);
	});

function drop(chunks, entry) {
	chunks.index("entry").openKeyCursor(entry.id).onsuccess = ({ target: { result: cursor } }) => {
		if (!cursor) return;
		chunks.delete(cursor.primaryKey);
		cursor.continue();
	};
}
