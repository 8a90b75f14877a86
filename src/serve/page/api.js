// Talking to the server that this page came from. Addresses are relative, so that the page also works behind a proxy
// under another path.
import {events} from './sse.js';

const kKey = 'cairn.key';

export function apiKey() {
  try {
    return sessionStorage.getItem(kKey) ?? '';
  } catch {
    return '';
  }
}

export function setApiKey(key) {
  try {
    if (key) sessionStorage.setItem(kKey, key);
    else sessionStorage.removeItem(kKey);
  } catch {  // no storage: asked again next time
  }
}

// What went wrong, in words for a person: title, text, and what helps.
export class ApiError extends Error {
  constructor({status = 0, code = '', message = '', retryAfter = null, requestId = ''}) {
    super(message);
    Object.assign(this, {status, code, retryAfter, requestId});
    Object.assign(this, explain(this));
  }
}

function explain({status, code, message, retryAfter}) {
  if (code === 'context_length_exceeded' || /context (length|window|size|holds)/i.test(message))
    return {kind: 'too_long', title: 'Too long for this model',
            hint: 'Start a new chat, shorten the conversation, or ask for a shorter answer (max tokens in the settings).'};
  switch (status) {
    case 0:
      if (code === 'broken') return {kind: 'network', title: 'The connection broke', hint: 'What came before is kept.'};
      return {kind: 'network', title: 'The server cannot be reached',
              hint: 'Is cairn serve still running? What you wrote is kept.'};
    case 401:
    case 403:
      return {kind: 'key', title: status === 401 ? 'The server asks for an API key' : 'The server refuses this key or origin',
              hint: ''};
    case 404:
      return {kind: 'missing', title: 'The server does not know this', hint: 'Another model may be loaded now: choose it above.'};
    case 413:
      return {kind: 'too_long', title: 'The message is too large for the server', hint: 'Shorten it or start a new chat.'};
    case 429:
    case 503:
      return {kind: 'busy', title: status === 429 ? 'The server is busy' : 'The server is not ready',
              hint: retryAfter === null ? 'Try again in a moment.' : ''};
    default:
      if (status >= 500) return {kind: 'server', title: 'The server failed at this request', hint: 'Others are not affected. Try again.'};
      return {kind: 'request', title: 'The server did not accept the request', hint: ''};
  }
}

// Never waits for more than the first 64 KB of an error's body.
async function errorFrom(response) {
  let text = '';
  try {
    text = (await response.text()).slice(0, 65536);
  } catch {  // the status has to do
  }
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {  // not ours: a proxy's page
  }
  const error = typeof body?.error === 'object' && body.error ? body.error : {};
  const plain = typeof body?.error === 'string' ? body.error : body ? '' : text.replace(/<[^>]{0,200}>/g, ' ').trim().slice(0, 500);
  return new ApiError({
    status: response.status,
    code: String(error.code ?? error.type ?? ''),
    message: String(error.message ?? (plain || `${response.status} ${response.statusText}`)),
    retryAfter: retryAfter(response.headers.get('retry-after')),
    requestId: response.headers.get('x-request-id') ?? '',
  });
}

function retryAfter(header) {
  if (!header) return null;
  const seconds = /^\d+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(Math.ceil(seconds), 1), 3600) : null;
}

export async function call(path, {body = null, signal = null} = {}) {
  const headers = {};
  if (body) headers['content-type'] = 'application/json';
  const key = apiKey();
  if (/[^\x21-\x7e]/.test(key)) throw new ApiError({status: 401, message: 'the API key has characters that cannot be sent'});
  if (key) headers.authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, {method: body ? 'POST' : 'GET', headers, body: body ? JSON.stringify(body) : undefined, signal,
                                  cache: 'no-store'});
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError({message: String(error.message ?? error)});
  }
  if (!response.ok) throw await errorFrom(response);
  return response;
}

export async function models() {
  const list = (await (await call('v1/models')).json())?.data;
  return Array.isArray(list) ? list.map((model) => String(model?.id ?? '')).filter(Boolean) : [];
}

// See engine.js for the fields.
export async function engine(signal) {
  return await (await call('engine', {signal})).json();
}

// Streams one answer. Calls hear({content, reasoning, toolCalls, usage, finish}) with what each event brought, any of
// them missing; resolves to how many events could not be read. Throws ApiError, or AbortError after signal.
export async function streamChat(body, hear, signal) {
  const response = await call('v1/chat/completions', {body, signal});
  if (!/event-stream/.test(response.headers.get('content-type') ?? '')) {
    throw new ApiError({status: 502, message: 'the server answered with something that is not an event stream'});
  }
  let unreadable = 0, done = false, finished = false;
  try {
    for await (const data of events(response.body)) {
      if (data === '[DONE]') {
        done = true;
        break;
      }
      let event;
      try {
        event = JSON.parse(data);
      } catch {
        ++unreadable;
        continue;
      }
      if (event?.error) {
        const error = typeof event.error === 'object' ? event.error : {message: event.error};
        throw new ApiError({status: Number(error.status ?? error.code) || 500, code: String(error.code ?? error.type ?? ''),
                            message: String(error.message ?? 'no reason given')});
      }
      const choice = Array.isArray(event?.choices) ? event.choices[0] : null;
      const delta = choice?.delta ?? {};
      const heard = {
        content: text(delta.content),
        reasoning: text(delta.reasoning_content) || text(delta.reasoning),
        toolCalls: Array.isArray(delta.tool_calls) ? delta.tool_calls : [],
        usage: event?.usage ?? null,
        finish: text(choice?.finish_reason),
      };
      if (heard.finish) finished = true;
      hear(heard);
    }
  } catch (error) {
    if (error instanceof ApiError || signal?.aborted) throw error;
    throw new ApiError({code: 'broken', message: `the connection broke during the answer (${error.message})`});
  }
  if (!done && !finished) throw new ApiError({code: 'broken', message: 'the connection ended before the answer did'});
  return unreadable;
}

function text(value) {
  return typeof value === 'string' ? value : '';
}
