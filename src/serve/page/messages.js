// How the messages of a chat look: what the person wrote, what the model answered, what tools gave back.
import {copyFrom, count, el, icon, iconButton, rate, seconds} from './dom.js';
import {drawMarkdown, MarkdownStream} from './markdown.js';
import {speed} from './run.js';
import {shownAnswer} from './store.js';

// Text that grows at its end without being copied again.
class GrowingText {
  #node = null;

  constructor(parent) {
    this.parent = parent;
  }

  append(text) {
    if (!text) return;
    if (this.#node && this.#node.length < 8000) this.#node.appendData(text);
    else this.parent.append((this.#node = document.createTextNode(text)));
  }
}

function action(name, label, onclick) {
  return iconButton(name, label, onclick, {class: 'icon-button small'});
}

export function userMessage(message, {onEdit}) {
  const text = el('div', {class: 'bubble', dir: 'auto'}, message.content);
  const copy = action('copy', 'Copy message', () => copyFrom(copy, message.content));
  const actions = el('div', {class: 'actions'}, copy, action('edit', 'Edit and send again', () => edit()));
  const item = el('li', {class: 'message user'}, el('h2', {class: 'visually-hidden'}, 'You'), text, actions);

  function edit() {
    const area = el('textarea', {class: 'bubble', dir: 'auto', rows: 3, 'aria-label': 'Edit your message'});
    area.value = message.content;
    const close = () => {
      form.replaceWith(text);
      actions.hidden = false;
      actions.querySelector('button:last-child').focus();
    };
    const save = () => {
      const written = area.value.trim();
      if (!written) return;
      onEdit(written);
    };
    const form = el('form', {class: 'edit', onsubmit: (event) => { event.preventDefault(); save(); }}, area,
                    el('p', {class: 'note'}, 'What came after this message is replaced.'),
                    el('div', {class: 'row end'}, el('button', {type: 'button', class: 'button', onclick: close}, 'Cancel'),
                       el('button', {type: 'submit', class: 'button primary'}, 'Send')));
    area.addEventListener('keydown', (event) => {
      if (event.isComposing) return;
      if (event.key === 'Escape') event.stopPropagation(), close();
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) event.preventDefault(), save();
    });
    text.replaceWith(form);
    actions.hidden = true;
    area.style.blockSize = `${Math.min(Math.max(area.scrollHeight + 4, 80), innerHeight / 2)}px`;
    area.focus();
  }
  item.startEdit = edit;
  return item;
}

export function toolMessage(message) {
  return el('li', {class: 'message tool'}, el('h2', {class: 'visually-hidden'}, 'Tool result'),
            el('div', {class: 'tool-call'}, el('div', {class: 'tool-head'}, icon('tool'), el('span', {}, `Result of ${message.name || 'a tool'}`)),
               el('pre', {tabindex: 0, dir: 'auto'}, message.content)));
}

// One answer. While a run makes it, attach(run) draws what comes, once a frame.
export class AnswerView {
  #message;
  #handlers;
  #reasoningText = null;
  #markdown = null;
  #run = null;
  #unwatch = null;
  #frame = 0;
  #toolsChanged = false;

  // handlers: onRegenerate(), onShow(index), onToolResults(results), onDrawn(), onKey(), onRetry()
  constructor(message, handlers) {
    this.#message = message;
    this.#handlers = handlers;
    this.prose = el('div', {class: 'prose', dir: 'auto'});
    this.reasoningBody = el('div', {class: 'reasoning-text', dir: 'auto'});
    this.summary = el('summary', {});
    this.reasoning = el('details', {class: 'reasoning', hidden: true}, this.summary, this.reasoningBody);
    this.tools = el('div', {class: 'tool-calls'});
    this.notice = el('div', {class: 'notice-place'});
    this.meta = el('p', {class: 'meta'});
    this.actions = el('div', {class: 'actions'});
    this.wait = el('p', {class: 'thinking', hidden: true}, el('span', {class: 'visually-hidden'}, 'Waiting for the first word'),
                   el('span', {class: 'dot'}), el('span', {class: 'dot'}), el('span', {class: 'dot'}));
    this.element = el('li', {class: 'message assistant'}, el('h2', {class: 'visually-hidden'}, 'Answer'), this.reasoning, this.wait, this.prose,
                      this.tools, this.notice, el('div', {class: 'foot'}, this.meta, this.actions));
  }

  get answer() {
    return shownAnswer(this.#message);
  }

  // A finished answer.
  draw(isLast) {
    const {answer} = this;
    this.#reset();
    if (answer.reasoning) this.#reasoningText.append(answer.reasoning);
    drawMarkdown(this.prose, answer.content);
    this.#end(isLast);
  }

  attach(run, isLast) {
    this.#reset();
    this.#run = run;
    const {answer} = this;
    this.#markdown = new MarkdownStream(this.prose);
    this.#markdown.append(answer.content);
    if (answer.reasoning) this.#reasoningText.append(answer.reasoning);
    this.#toolsChanged = answer.toolCalls.length > 0;
    this.element.setAttribute('aria-busy', 'true');
    this.element.classList.add('streaming');
    this.#unwatch = run.watch((kind, heard) => {
      if (kind === 'piece') {
        this.#markdown.append(heard.content);
        this.#reasoningText.append(heard.reasoning);
        if (heard.toolCalls.length) this.#toolsChanged = true;
      }
      if (kind === 'end') {
        cancelAnimationFrame(this.#frame);
        this.#markdown.finish();
        this.#detach();
        this.#end(isLast());
        this.#handlers.onDrawn();
      } else {
        this.#frame ||= requestAnimationFrame(() => this.#drawStreaming());
      }
    });
    this.#drawStreaming();
  }

  // The view goes away; the run goes on.
  leave() {
    cancelAnimationFrame(this.#frame);
    this.#detach();
  }

  #detach() {
    this.#unwatch?.();
    this.#unwatch = null;
    this.#run = null;
    this.element.removeAttribute('aria-busy');
    this.element.classList.remove('streaming');
  }

  #reset() {
    this.leave();
    this.prose.replaceChildren();
    this.reasoningBody.replaceChildren();
    this.#reasoningText = new GrowingText(this.reasoningBody);
    this.notice.replaceChildren();
    this.actions.replaceChildren();
    this.meta.textContent = '';
    this.tools.replaceChildren();
  }

  #drawStreaming() {
    this.#frame = 0;
    const {answer} = this;
    const stats = this.#run.stats();
    this.#markdown.draw();
    this.wait.hidden = Boolean(answer.content || answer.reasoning || answer.toolCalls.length || this.#run.waiting);
    this.#summarise(stats, true);
    if (this.#toolsChanged) this.#drawTools(false);
    this.#drawWaiting();
    const perSecond = speed(stats);
    this.meta.textContent = stats ? `${count(stats.answerTokens)} tokens${perSecond ? ` · ${rate(perSecond)} tok/s` : ''}` : '';
    this.#handlers.onDrawn();
  }

  #summarise(stats, running) {
    const {answer} = this;
    this.reasoning.hidden = !answer.reasoning;
    if (!answer.reasoning) return;
    const thinking = running && !answer.content && !answer.toolCalls.length;
    const took = stats?.reasoningSeconds;
    this.summary.textContent = thinking ? 'Thinking…' : Number.isFinite(took) && took > 0 ? `Thought for ${seconds(took)}` : 'Thoughts';
    this.reasoning.classList.toggle('active', thinking);
  }

  #drawWaiting() {
    const {waiting} = this.#run;
    if (!waiting) {
      if (this.notice.firstChild) this.notice.replaceChildren();
      return;
    }
    if (this.notice.firstChild) return;
    const run = this.#run;
    const left = el('span', {});
    const tick = () => {
      if (!left.isConnected && this.notice.firstChild) return;
      left.textContent = `Trying again in ${Math.max(0, Math.ceil((waiting.until - performance.now()) / 1000))} s.`;
      if (run.waiting === waiting) setTimeout(tick, 250);
    };
    this.notice.replaceChildren(notice('busy', waiting.error.title, waiting.error.message, left, waiting.error.requestId,
                                       [el('button', {type: 'button', class: 'button', onclick: () => run.retryNow()}, 'Try now')]));
    tick();
  }

  #end(isLast) {
    const {answer} = this;
    this.wait.hidden = true;
    this.#summarise(answer.stats, false);
    this.#drawTools(isLast);
    this.meta.replaceChildren(...statsText(answer));
    this.notice.replaceChildren();
    if (answer.error) {
      const buttons = [];
      if (answer.error.kind === 'key') buttons.push(el('button', {type: 'button', class: 'button primary', onclick: this.#handlers.onKey}, 'Enter the key'));
      if (answer.error.kind !== 'notice') buttons.push(el('button', {type: 'button', class: 'button', onclick: this.#handlers.onRetry}, 'Try again'));
      const {kind, title, message, hint, requestId} = answer.error;
      this.notice.append(notice(kind, title, message, hint, requestId, buttons));
    }
    const how = {length: 'The answer reached its token limit: raise max tokens in the settings for a longer one.',
                 content_filter: 'The server ended the answer (content filter).', stopped: 'Stopped.'}[answer.finish];
    if (how && !answer.error) this.notice.append(el('p', {class: 'note'}, how));
    const empty = !answer.content && !answer.toolCalls.length;
    if (empty && !answer.error && !how) this.notice.append(el('p', {class: 'note'}, 'The model ended its answer without a word.'));
    this.#drawActions(empty);
  }

  #drawActions(empty) {
    const {answers, shown} = this.#message;
    const buttons = [];
    if (answers.length > 1) {
      const to = (index) => () => this.#handlers.onShow(index);
      const back = action('left', 'Earlier answer', to(shown - 1)), forth = action('right', 'Later answer', to(shown + 1));
      back.disabled = shown === 0;
      forth.disabled = shown === answers.length - 1;
      buttons.push(back, el('span', {class: 'which'}, `${shown + 1} / ${answers.length}`), forth);
    }
    if (this.answer.content) {
      const copy = action('copy', 'Copy answer', () => copyFrom(copy, this.answer.content));
      buttons.push(copy);
    }
    buttons.push(action('again', 'Answer again', () => this.#handlers.onRegenerate()));
    this.actions.replaceChildren(...buttons);
  }

  #drawTools(isLast) {
    const {toolCalls, finish} = this.answer;
    this.#toolsChanged = false;
    this.tools.replaceChildren(...toolCalls.map((call) =>
      el('div', {class: 'tool-call'}, el('div', {class: 'tool-head'}, icon('tool'), el('span', {}, call.name || 'a tool')),
         el('pre', {tabindex: 0, dir: 'ltr', role: 'region', 'aria-label': `Arguments of ${call.name}`}, prettyJson(call.arguments)))));
    if (isLast && toolCalls.length && finish === 'tool_calls') this.tools.append(this.#resultForm(toolCalls));
  }

  // The page runs no tools: the person tells what they gave.
  #resultForm(toolCalls) {
    const areas = toolCalls.map((call) => el('textarea', {rows: 2, dir: 'auto', class: 'mono', required: true,
                                                         'aria-label': `Result of ${call.name}`, placeholder: `Result of ${call.name}`}));
    return el('form', {class: 'tool-results', onsubmit: (event) => {
      event.preventDefault();
      this.#handlers.onToolResults(toolCalls.map((call, i) => ({role: 'tool', tool_call_id: call.id, name: call.name, content: areas[i].value})));
    }}, ...areas, el('div', {class: 'row end'}, el('button', {type: 'submit', class: 'button'}, 'Send results')));
  }
}

function notice(kind, title, message, hint, requestId, buttons) {
  return el('div', {class: `notice ${kind === 'notice' || kind === 'busy' ? 'mild' : 'bad'}`, role: kind === 'busy' ? 'status' : 'alert'},
            icon('alert'),
            el('div', {class: 'notice-text'}, el('strong', {}, title), message ? el('p', {dir: 'auto'}, message) : null,
               hint ? el('p', {}, hint) : null, requestId ? el('p', {class: 'note'}, `Request ${requestId}`) : null,
               buttons.length ? el('div', {class: 'row'}, ...buttons) : null));
}

function prettyJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;  // still arriving, or not JSON
  }
}

function statsText({stats, model}) {
  const parts = [];
  if (model) parts.push(model);
  if (stats) {
    parts.push(`${stats.counted ? '' : '≈ '}${count(stats.answerTokens)} tokens`);
    const perSecond = speed(stats);
    if (perSecond) parts.push(`${rate(perSecond)} tok/s`);
    parts.push(`first after ${seconds(stats.firstSeconds)}`);
    if (Number.isFinite(stats.promptTokens))
      parts.push(`prompt ${count(stats.promptTokens)}${stats.cachedTokens ? ` (${count(stats.cachedTokens)} reused)` : ''}`);
  }
  return parts.flatMap((part, i) => (i ? [' · ', el('span', {}, part)] : [el('span', {}, part)]));
}
