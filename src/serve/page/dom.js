// Small helpers for making nodes. Text always goes in as text: nothing on this page parses markup.

// el('a', {href: '#x', class: 'y', onclick: f, hidden: false}, 'text', node): null and false children are left out.
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

export const byId = (id) => document.getElementById(id);

// Strokes on a grid of 24.
const ICONS = {
  menu: 'M4 7h16M4 12h16M4 17h16',
  plus: 'M12 5v14M5 12h14',
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  copy: 'M9 9h11v11H9zM15 9V4H4v11h5',
  check: 'M5 12.5l5 5L19 7',
  edit: 'M4 20l1-4L16 5l3 3L8 19zM13.5 7.5l3 3',
  again: 'M19 12a7 7 0 1 1-2.2-5.1M17 3v4h-4',
  trash: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5',
  sliders: 'M4 8h9M17 8h3M15 6v4M4 16h3M11 16h9M9 14v4',
  pulse: 'M3 12h4l3-7 4 14 3-7h4',
  sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6L7 7M17 17l1.4 1.4M5.6 18.4L7 17M17 7l1.4-1.4',
  moon: 'M19 14.5A7.5 7.5 0 0 1 9.5 5a7.5 7.5 0 1 0 9.5 9.5z',
  close: 'M6 6l12 12M18 6L6 18',
  left: 'M14 6l-6 6 6 6',
  right: 'M10 6l6 6-6 6',
  down: 'M12 5v14M6 13l6 6 6-6',
  download: 'M12 4v11M7 10l5 5 5-5M5 20h14',
  upload: 'M12 15V4M7 9l5-5 5 5M5 20h14',
  keyboard: 'M3 7h18v11H3zM7 11h.01M11 11h.01M15 11h.01M8 14.5h8',
  alert: 'M12 4L3 19.5h18zM12 10v4.5M12 17h.01',
  tool: 'M14.5 6.5a4 4 0 0 0-5 5L4 17l3 3 5.5-5.5a4 4 0 0 0 5-5L15 12l-3-3z',
};

export function icon(name) {
  return svg('svg', {viewBox: '0 0 24 24', 'aria-hidden': 'true', class: 'icon'}, svg('path', {d: ICONS[name]}));
}

export function iconButton(name, label, onclick, attributes = {}) {
  return el('button', {type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick, ...attributes},
            icon(name));
}

// Copies and says so on the button for a moment. Without the clipboard API (plain http from another machine) the old
// way through a selection still works.
export async function copyFrom(button, text) {
  const done = await copyText(text);
  const shown = button.querySelector('svg');
  const label = button.getAttribute('aria-label') ?? 'Copy';
  shown?.replaceWith(icon(done ? 'check' : 'alert'));
  button.setAttribute('aria-label', done ? 'Copied' : 'Copying was refused by the browser');
  setTimeout(() => {
    button.querySelector('svg')?.replaceWith(icon('copy'));
    button.setAttribute('aria-label', label);
  }, 1500);
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el('textarea', {class: 'visually-hidden', readonly: true, 'aria-hidden': 'true', tabindex: -1});
    area.value = text;
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    focused?.focus();
    return done;
  }
}

const THIN = '\u202f';

export function count(n) {
  if (!Number.isFinite(n)) return '–';
  return Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, THIN);
}

export function rate(n) {
  if (!Number.isFinite(n)) return '–';
  return n >= 100 ? count(n) : n.toFixed(1);
}

export function seconds(s) {
  if (!Number.isFinite(s)) return '–';
  if (s < 0.9995) return `${Math.round(s * 1000)} ms`;
  if (s < 59.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
