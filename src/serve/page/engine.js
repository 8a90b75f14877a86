// The live view of the engine: GET /engine once a second while it is open.
//
// The answer is JSON. Every field may be missing, and is then not shown.
//   {"model": "llama-1b", "device": "cpu, 16 threads", "context": 8192,
//    "running": 3, "waiting": 1,                              requests
//    "pages": {"total": 4096,                                 of keys and values, in the fastest tier
//              "free": 2048,                                  hold nothing
//              "cached": 1024,                                held for reuse only; the rest, total - free - cached, is in use
//              "disk": 512, "host": 0},                       in slower tiers, beside total
//    "tokens": {"prompt_per_s": 812.0, "answer_per_s": 96.5}, over the last second
//    "step_ms": {"real": 10.2, "predicted": 9.8},             of the last steps; predicted by the cost model
//    "requests": [{"id": "r-17", "client": "desk", "state": "prefill" | "decode" | "waiting" | ...,
//                  "prompt_tokens": 512, "answer_tokens": 40, "age_s": 3.2}],
//    "history": [{"running": 3, "waiting": 0, "pages_used": 1024, "prompt_per_s": 0, "answer_per_s": 97.0, "step_ms": 10.1}]}
// history: one entry a second, oldest first, the last at most 120; it fills the lines when the view opens. Later
// seconds are kept by the page.
import {engine as readEngine} from './api.js';
import {count, el, rate, seconds, svg} from './dom.js';

const kSeconds = 120;
const kRows = 50;  // of requests

const number = (value) => (typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : null);
const text = (value) => (typeof value === 'string' ? value.slice(0, 200) : '');

// {value, line}: a value with its last two minutes.
class Series {
  #points = [];
  #line = svg('path', {class: 'line'});
  #area = svg('path', {class: 'area'});
  #svg = svg('svg', {viewBox: '0 0 240 40', preserveAspectRatio: 'none', class: 'spark', role: 'img'}, this.#area, this.#line);
  #value = el('span', {class: 'value'}, '–');
  #detail = el('span', {class: 'detail'});

  constructor(label, format) {
    this.label = label;
    this.format = format;
    this.element = el('div', {class: 'metric'}, el('div', {class: 'metric-head'}, el('span', {class: 'label'}, label), this.#detail, this.#value),
                      this.#svg);
  }

  fill(points) {
    this.#points = points.slice(-kSeconds);
  }

  add(point, detail = '') {
    this.#points.push(point);
    if (this.#points.length > kSeconds) this.#points.shift();
    this.#value.textContent = point === null ? '–' : this.format(point);
    this.#detail.textContent = detail;
    this.#draw();
  }

  #draw() {
    const known = this.#points.filter((point) => point !== null);
    const peak = Math.max(...known, 0);
    const x = (i) => (240 * (kSeconds - this.#points.length + i)) / (kSeconds - 1);
    const y = (point) => 38 - (peak > 0 ? (36 * point) / peak : 0);
    let line = '', area = '', from = null;
    const close = (i) => {
      if (from !== null) area += `L${x(i).toFixed(1)} 39L${x(from).toFixed(1)} 39Z`;
      from = null;
    };
    this.#points.forEach((point, i) => {
      if (point === null) {
        if (i) close(i - 1);
        return;
      }
      const at = `${x(i).toFixed(1)} ${y(point).toFixed(1)}`;
      line += `${from === null ? 'M' : 'L'}${at}`;
      area += `${from === null ? 'M' : 'L'}${at}`;
      from ??= i;
    });
    close(this.#points.length - 1);
    this.#line.setAttribute('d', line || 'M0 0');
    this.#area.setAttribute('d', area || 'M0 0');
    const now = this.#points.at(-1) ?? null;
    this.#svg.setAttribute('aria-label', `${this.label}, last two minutes: now ${now === null ? 'unknown' : this.format(now)}, ` +
                                             `at most ${this.format(peak)}`);
  }
}

export function buildEngine(root, {onKey}) {
  const about = el('p', {class: 'engine-about', dir: 'auto'});
  const state = el('p', {class: 'engine-state', role: 'status'});
  const running = new Series('Running', count), waiting = new Series('Waiting', count);
  const answer = new Series('Answer tokens / s', rate), prompt = new Series('Prompt tokens / s', rate);
  const step = new Series('Step time', (ms) => `${rate(ms)} ms`);
  const used = new Series('Pages in use', count);
  const bar = el('div', {class: 'pages-bar', role: 'img'});
  const legend = el('dl', {class: 'pages-legend'});
  const rows = el('tbody');
  const more = el('p', {class: 'note'});
  const requests = el('div', {class: 'table requests', tabindex: 0, role: 'region', 'aria-label': 'Requests'},
      el('table', {}, el('thead', {}, el('tr', {}, ...['Request', 'State', 'Prompt', 'Answer', 'Age'].map((name, i) =>
          el('th', {scope: 'col', class: i > 1 ? 'align-end' : null}, name)))), rows));
  const requestsPart = el('div', {}, el('h3', {}, 'Requests'), requests, more);
  const body = el('div', {class: 'engine-body', hidden: true}, about, el('div', {class: 'metric-pair'}, running.element, waiting.element),
                  answer.element, prompt.element, step.element, used.element, bar, legend, requestsPart);
  root.append(state, body);

  let timer = 0, reading = null, failures = 0, filled = false;

  function show(facts) {
    const pages = typeof facts.pages === 'object' && facts.pages ? facts.pages : {};
    const total = number(pages.total), free = number(pages.free), cached = number(pages.cached) ?? 0;
    const inUse = total !== null && free !== null ? Math.max(total - free - cached, 0) : null;
    const real = number(facts.step_ms?.real), predicted = number(facts.step_ms?.predicted);
    if (!filled && Array.isArray(facts.history)) {
      const history = facts.history.slice(-(kSeconds - 1));
      const of = (name) => history.map((second) => number(second?.[name]));
      running.fill(of('running'));
      waiting.fill(of('waiting'));
      answer.fill(of('answer_per_s'));
      prompt.fill(of('prompt_per_s'));
      step.fill(of('step_ms'));
      used.fill(of('pages_used'));
    }
    filled = true;
    const context = number(facts.context);
    about.textContent = [text(facts.model), text(facts.device), context ? `context of ${count(context)} tokens` : ''].filter(Boolean).join(' · ');
    running.add(number(facts.running));
    waiting.add(number(facts.waiting));
    answer.add(number(facts.tokens?.answer_per_s));
    prompt.add(number(facts.tokens?.prompt_per_s));
    step.add(real, !predicted ? '' : `predicted ${rate(predicted)} ms`);
    used.add(inUse, total === null ? '' : `of ${count(total)}`);
    showPages(total, [['in use', inUse, 'used'], ['cached', total === null ? null : cached, 'cached'], ['free', free, 'free']],
              [['in host memory', number(pages.host)], ['on disk', number(pages.disk)]]);
    requestsPart.hidden = !Array.isArray(facts.requests);
    showRequests(Array.isArray(facts.requests) ? facts.requests : []);
  }

  function showPages(total, parts, others) {
    bar.hidden = !total;
    if (total)
      bar.replaceChildren(...parts.map(([, pages, name]) => {
        const part = el('span', {class: `part ${name}`});
        part.style.flexGrow = String((pages ?? 0) / total);
        return part;
      }));
    const known = [...parts, ...others].filter(([, pages]) => pages !== null);
    bar.setAttribute('aria-label', `Pages: ${known.map(([label, pages]) => `${count(pages)} ${label}`).join(', ')}`);
    legend.replaceChildren(...known.map(([label, pages, name]) =>
        el('div', {}, el('dt', {}, name ? el('span', {class: `key ${name}`}) : null, label), el('dd', {}, count(pages)))));
  }

  function showRequests(list) {
    rows.replaceChildren(...list.slice(0, kRows).map((request) => {
      const client = text(request?.client);
      return el('tr', {}, el('td', {dir: 'auto'}, el('span', {class: 'request-id'}, text(request?.id) || '–'), client ? el('span', {class: 'note'}, ` ${client}`) : null),
                el('td', {}, text(request?.state) || '–'), el('td', {class: 'align-end'}, count(number(request?.prompt_tokens))),
                el('td', {class: 'align-end'}, count(number(request?.answer_tokens))), el('td', {class: 'align-end'}, seconds(number(request?.age_s) ?? NaN)));
    }));
    requests.hidden = !list.length;
    more.textContent = !list.length ? 'None at the moment.' : list.length > kRows ? `and ${count(list.length - kRows)} more` : '';
  }

  async function read() {
    reading = new AbortController();
    const late = setTimeout(() => reading.abort(), 5000);
    try {
      const facts = await readEngine(reading.signal);
      if (typeof facts !== 'object' || facts === null) throw new Error('/engine is not a JSON object');
      failures = 0;
      state.textContent = '';
      body.hidden = false;
      show(facts);
    } catch (error) {
      if (timer === 0) return;  // closed meanwhile
      ++failures;
      if (error.kind === 'missing') {
        state.textContent = 'This server does not tell about its engine.';
        body.hidden = true;
      } else if (error.kind === 'key') {
        state.replaceChildren('The engine is shown to holders of an API key. ', el('button', {type: 'button', class: 'button', onclick: onKey}, 'Enter the key'));
        body.hidden = true;
      } else {
        state.textContent = `No word from the engine${failures > 1 ? ` for ${failures} tries` : ''}: ${error.name === 'AbortError' ? 'no answer within 5 s' : error.message}`;
      }
    } finally {
      clearTimeout(late);
    }
    if (timer !== 0) schedule(Math.min(1000 * Math.max(failures, 1), 10000));
  }

  function schedule(ms) {
    clearTimeout(timer);
    timer = setTimeout(() => (document.hidden ? schedule(1000) : read()), ms);
  }

  return {
    start() {
      if (timer === 0) schedule(0);
    },
    stop() {
      clearTimeout(timer);
      timer = 0;
      reading?.abort();
      filled = false;
    },
  };
}
