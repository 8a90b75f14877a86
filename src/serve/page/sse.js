// Server-sent events from a fetch body (the format: HTML standard, section 9.2). EventSource itself cannot send a
// POST or a key.

const kLargest = 16 << 20;  // characters of one event

// Yields the data of each event. Comments (": keep-alive") yield nothing. Throws what reading the body throws.
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';     // of the line that is still arriving
  let skipLf = false;
  let data = null;   // lines of the event that is still arriving
  let size = 0;
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;  // an event without its blank line is incomplete and dropped, as the standard says
      let text = decoder.decode(value, {stream: true});
      if (skipLf && text.startsWith('\n')) text = text.slice(1);
      if (text) skipLf = text.endsWith('\r');
      const lines = text.split(/\r\n|\n|\r/);
      lines[0] = rest + lines[0];
      rest = lines.pop();
      for (const line of lines) {
        if (line === '') {
          if (data) yield data.join('\n');
          data = null;
          size = 0;
        } else if (line.startsWith('data:')) {
          (data ??= []).push(line.slice(line[5] === ' ' ? 6 : 5));
          size += line.length;
        }
      }
      if (rest.length + size > kLargest) throw new Error('an event of the stream is larger than 16 MB');
    }
  } finally {
    reader.cancel().catch(() => {});  // the caller may have left early: let go of the connection
  }
}
