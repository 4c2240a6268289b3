import { useEffect, useRef, useState } from "react";
import { record, transcribe } from "./steno.js";

const baseUrl = import.meta.env.VITE_STENO_URL ?? "http://127.0.0.1:8000";

/** Records speech and shows its transcript. `token` is the user's token, if the server requires one. */
export default function Recorder({ token }) {
  const recorder = useRef(null);
  const removed = useRef(null); // is aborted when the component is removed from the page
  const [isRecording, setIsRecording] = useState(false);
  const [status, setStatus] = useState("");
  const [transcript, setTranscript] = useState("");

  useEffect(() => {
    const controller = (removed.current = new AbortController());
    return () => {
      controller.abort();
      recorder.current?.stop();
    };
  }, []);

  async function start() {
    recorder.current = await record();
    if (removed.current.signal.aborted) recorder.current.stop();
    setIsRecording(true);
    setStatus("Recording");
  }

  async function stop() {
    setIsRecording(false);
    const recording = await recorder.current.stop();
    const onProgress = ({ phase }) => setStatus(phase);
    const options = { baseUrl, token, signal: removed.current.signal, onProgress };
    setTranscript((await transcribe(recording, options)).transcript);
    setStatus("");
  }

  const run = (action) => action().catch((error) => setStatus(error.message));
  return (
    <section>
      <button disabled={isRecording} onClick={() => run(start)}>Record</button>
      <button disabled={!isRecording} onClick={() => run(stop)}>Stop</button>
      <p role="status">{status}</p>
      <p id="transcript">{transcript}</p>
    </section>
  );
}
