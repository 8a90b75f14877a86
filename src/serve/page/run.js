// One answer being made: reads the stream into the answer's fields, measures it, and tells whoever watches.
import {ApiError, streamChat} from './api.js';

const kTries = 4;  // of a request that the server was too busy for

export class Run {
  #stop = new AbortController();
  #wake = null;
  #watchers = new Set();
  #started = 0;    // of the request, in ms of performance.now()
  #first = null;   // of the first piece
  #last = null;
  #reasoned = null;
  #pieces = 0;     // about one a token, until the server's usage says how many there were
  #usage = null;

  constructor(chat, answer, body) {
    Object.assign(this, {chat, answer, body, active: true, waiting: null});
  }

  // watcher(kind, heard): 'piece' with what came, 'wait' (for a busy server; see this.waiting), 'end'.
  watch(watcher) {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  stop() {
    this.#stop.abort();
    this.#wake?.();
  }

  retryNow() {
    this.#wake?.();
  }

  // Resolves when the answer has ended, however it did: answer.finish and answer.error say so.
  async go() {
    const {answer} = this;
    try {
      for (let attempt = 1;; ++attempt) {
        try {
          this.#started = performance.now();
          const unreadable = await streamChat(this.body, (heard) => this.#hear(heard), this.#stop.signal);
          if (unreadable) answer.error = {kind: 'notice', title: 'A part of the answer may be missing', hint: '', requestId: '',
                                          message: `${unreadable} event${unreadable > 1 ? 's' : ''} of the stream could not be read.`};
          break;
        } catch (error) {
          if (!(error instanceof ApiError) || error.kind !== 'busy' || error.retryAfter === null || attempt === kTries) throw error;
          await this.#pause(error);
        }
      }
    } catch (error) {
      if (this.#stop.signal.aborted) {
        answer.finish = 'stopped';
      } else {
        const known = error instanceof ApiError ? error : {kind: 'page', title: 'This page failed', hint: '', requestId: ''};
        answer.error = {kind: known.kind, title: known.title, message: error.message, hint: known.hint, requestId: known.requestId};
      }
    }
    this.active = false;
    this.waiting = null;
    answer.stats = this.stats();
    this.#tell('end', null);
  }

  async #pause(error) {
    this.waiting = {error, until: performance.now() + error.retryAfter * 1000};
    this.#tell('wait', null);
    await new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, error.retryAfter * 1000);
      if (this.#stop.signal.aborted) resolve();
    });
    this.#wake = null;
    this.waiting = null;
    if (this.#stop.signal.aborted) throw error;
    this.#tell('wait', null);
  }

  #hear(heard) {
    const {answer} = this;
    if (heard.usage) this.#usage = heard.usage;
    if (heard.finish) answer.finish = heard.finish;
    if (heard.content || heard.reasoning || heard.toolCalls.length) {
      const now = performance.now();
      this.#first ??= now;
      this.#last = now;
      ++this.#pieces;
      if (heard.content && answer.reasoning) this.#reasoned ??= now;
      answer.reasoning += heard.reasoning;
      answer.content += heard.content;
      for (const call of heard.toolCalls) addToolCall(answer.toolCalls, call);
    }
    this.#tell('piece', heard);
  }

  #tell(kind, heard) {
    for (const watcher of this.#watchers) watcher(kind, heard);
  }

  // What is known so far; null before the first piece.
  stats() {
    if (this.#first === null) return null;
    const counted = number(this.#usage?.completion_tokens);
    const reasonedUntil = this.#reasoned ?? this.#last;
    return {
      promptTokens: number(this.#usage?.prompt_tokens),
      cachedTokens: number(this.#usage?.prompt_tokens_details?.cached_tokens),
      answerTokens: counted ?? this.#pieces,
      counted: counted !== null,
      firstSeconds: (this.#first - this.#started) / 1000,
      seconds: (this.#last - this.#first) / 1000,
      reasoningSeconds: this.answer.reasoning ? (reasonedUntil - this.#first) / 1000 : null,
    };
  }
}

// Tokens a second after the first, or null when there were too few to tell.
export function speed(stats) {
  return stats && stats.answerTokens > 4 && stats.seconds > 0.02 ? (stats.answerTokens - 1) / stats.seconds : null;
}

function addToolCall(calls, delta) {
  const index = Number.isInteger(delta?.index) && delta.index >= 0 && delta.index <= calls.length ? delta.index : Math.max(calls.length - 1, 0);
  const call = (calls[index] ??= {id: '', name: '', arguments: ''});
  if (typeof delta?.id === 'string' && delta.id) call.id = delta.id;
  if (typeof delta?.function?.name === 'string') call.name += delta.function.name;
  if (typeof delta?.function?.arguments === 'string') call.arguments += delta.function.arguments;
}

const number = (value) => (typeof value === 'number' && Number.isFinite(value) ? value : null);
