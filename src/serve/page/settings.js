// How answers are drawn from the model: one form, kept in localStorage. An empty field is not sent: the server's own
// default counts.
import {apiKey, setApiKey} from './api.js';
import {byId, el} from './dom.js';

const kStored = 'cairn.settings';

// field: the request's name for it.
const FIELDS = [
  {field: 'temperature', label: 'Temperature', min: 0, max: 2, step: 0.05, note: '0 is always the likeliest token'},
  {field: 'top_p', label: 'Top p', min: 0, max: 1, step: 0.01, note: 'fewest tokens that reach this probability'},
  {field: 'top_k', label: 'Top k', min: 0, max: 1000000, step: 1, integer: true, note: 'the k likeliest; 0 is all'},
  {field: 'min_p', label: 'Min p', min: 0, max: 1, step: 0.01, note: 'fraction of the likeliest'},
  {field: 'max_tokens', label: 'Max tokens', min: 1, max: 100000000, step: 1, integer: true, note: 'of one answer'},
  {field: 'seed', label: 'Seed', min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, integer: true, note: 'same seed, same answer'},
];
const kMayNotSet = new Set(['messages', 'stream', 'stream_options', 'n']);

let stored = load();

function load() {
  try {
    const value = JSON.parse(localStorage.getItem(kStored));
    return typeof value === 'object' && value ? value : {};
  } catch {
    return {};
  }
}

function store() {
  try {
    localStorage.setItem(kStored, JSON.stringify(stored));
  } catch {  // kept until the page closes
  }
}

const textOf = (name) => (typeof stored[name] === 'string' ? stored[name] : '');

export const chosenModel = () => textOf('model');
export function chooseModel(model) {
  stored.model = model;
  store();
}

export const defaultSystem = () => textOf('system');

// The fields of a request body that the person has set. Throws Error naming the field that is wrong.
export function requestFields() {
  const fields = {};
  for (const {field, label, min, max, integer} of FIELDS) {
    const text = textOf(field).trim();
    if (text === '') continue;
    const value = Number(text);
    if (!Number.isFinite(value) || value < min || value > max || (integer && !Number.isInteger(value)))
      throw new Error(`${label} in the settings is ${text}; it can be ${integer ? 'a whole number ' : ''}from ${min} to ${max}`);
    fields[field] = value;
  }
  const stop = textOf('stop').split('\n').filter(Boolean).map((line) => line.replaceAll('\\n', '\n').replaceAll('\\t', '\t'));
  if (stop.length) fields.stop = stop;
  return {...fields, ...extraFields()};
}

function extraFields() {
  const text = textOf('extra').trim();
  if (text === '') return {};
  let extra;
  try {
    extra = JSON.parse(text);
  } catch (error) {
    throw new Error(`Extra request fields in the settings are not JSON: ${error.message}`);
  }
  if (typeof extra !== 'object' || extra === null || Array.isArray(extra))
    throw new Error('Extra request fields in the settings must be one JSON object, such as {"tools": […]}');
  for (const name of Object.keys(extra))
    if (kMayNotSet.has(name)) throw new Error(`Extra request fields in the settings may not set "${name}": the page does`);
  return extra;
}

// Builds the form into the panel. chat(): the chat that is shown; changed(): its system prompt was edited.
export function buildSettings(root, {chat, changed, keyChanged}) {
  const system = el('textarea', {id: 'set-system', rows: 4, dir: 'auto', 'aria-describedby': 'set-system-note',
                                 oninput: () => { chat().system = system.value; changed(); }});
  const asDefault = el('button', {type: 'button', class: 'quiet-button', onclick: () => {
    stored.system = system.value;
    store();
    asDefault.textContent = 'Kept for new chats';
    setTimeout(() => { asDefault.textContent = 'Use for new chats'; }, 1500);
  }}, 'Use for new chats');

  const problem = el('p', {class: 'field-problem', role: 'alert'});
  const check = () => {
    problem.textContent = '';
    try {
      requestFields();
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const bind = (input, name) => {
    input.value = textOf(name);
    input.addEventListener('input', () => { stored[name] = input.value; store(); });
    input.addEventListener('change', check);
    return input;
  };
  const numbers = FIELDS.map(({field, label, note, step, min, max, integer}) => {
    const id = `set-${field}`;
    return el('div', {class: 'field'}, el('label', {for: id}, label),
              bind(el('input', {id, type: 'number', inputmode: integer ? 'numeric' : 'decimal', step, min, max, placeholder: 'default',
                                'aria-describedby': `${id}-note`}), field),
              el('span', {class: 'note', id: `${id}-note`}, note));
  });
  const stop = bind(el('textarea', {id: 'set-stop', rows: 2, 'aria-describedby': 'set-stop-note', spellcheck: 'false'}), 'stop');
  const extra = bind(el('textarea', {id: 'set-extra', rows: 3, class: 'mono', spellcheck: 'false', 'aria-describedby': 'set-extra-note',
                                     placeholder: '{"tools": []}'}), 'extra');
  const key = el('input', {id: 'set-key', type: 'password', autocomplete: 'off', 'aria-describedby': 'set-key-note',
                           onchange: () => { setApiKey(key.value.trim()); keyChanged(); }});
  const theme = el('select', {id: 'set-theme', onchange: () => setTheme(theme.value)},
                   el('option', {value: ''}, 'System'), el('option', {value: 'light'}, 'Light'), el('option', {value: 'dark'}, 'Dark'));
  const reset = el('button', {type: 'button', class: 'quiet-button', onclick: () => {
    for (const {field} of FIELDS) delete stored[field];
    delete stored.stop;
    delete stored.extra;
    store();
    for (const input of root.querySelectorAll('.sampling input, .sampling textarea')) input.value = '';
    check();
  }}, 'Back to the server’s defaults');

  root.append(
      el('section', {}, el('h3', {}, 'This chat'),
         el('div', {class: 'field wide'}, el('label', {for: 'set-system'}, 'System prompt'), system,
            el('div', {class: 'row'}, el('span', {class: 'note', id: 'set-system-note'}, 'Told to the model before everything else.'), asDefault))),
      el('section', {class: 'sampling'}, el('h3', {}, 'Sampling'), ...numbers,
         el('div', {class: 'field wide'}, el('label', {for: 'set-stop'}, 'Stop texts'), stop,
            el('span', {class: 'note', id: 'set-stop-note'}, 'One a line; \\n stands for a line break.')),
         el('div', {class: 'field wide'}, el('label', {for: 'set-extra'}, 'Extra request fields'), extra,
            el('span', {class: 'note', id: 'set-extra-note'}, 'JSON added to each request: tools, response_format, logit_bias …')),
         problem, reset),
      el('section', {}, el('h3', {}, 'This page'),
         el('div', {class: 'field'}, el('label', {for: 'set-theme'}, 'Colours'), theme),
         el('div', {class: 'field wide'}, el('label', {for: 'set-key'}, 'API key'), key,
            el('span', {class: 'note', id: 'set-key-note'}, 'Kept until this tab closes, sent to this server only.'))));
  check();

  return {
    show() {  // when the panel opens or another chat is shown
      system.value = chat().system;
      key.value = apiKey();
      theme.value = storedTheme();
    },
  };
}

function storedTheme() {
  try {
    const theme = localStorage.getItem('cairn.theme');
    return theme === 'light' || theme === 'dark' ? theme : '';
  } catch {
    return '';
  }
}

export function setTheme(theme) {
  try {
    if (theme) localStorage.setItem('cairn.theme', theme);
    else localStorage.removeItem('cairn.theme');
  } catch {  // theme.js then goes by the system
  }
  dispatchEvent(new Event('cairn-theme'));
  const select = byId('set-theme');
  if (select) select.value = theme;
}
