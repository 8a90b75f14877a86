// Small questions in a <dialog>, and messages that go away by themselves.
import {byId, el, iconButton} from './dom.js';

// Resolves to the text, or null when it was cancelled.
export function askText({title, note = '', label, value = '', type = 'text', ok}) {
  return new Promise((resolve) => {
    const input = el('input', {type, id: 'dialog-input', autocomplete: 'off', dir: 'auto', 'aria-describedby': note ? 'dialog-note' : null});
    input.value = value;
    let given = null;
    const dialog = el('dialog', {'aria-labelledby': 'dialog-title', onclose: () => { dialog.remove(); resolve(given); }},
        el('form', {onsubmit: (event) => { event.preventDefault(); given = input.value; dialog.close(); }},
           el('h2', {id: 'dialog-title'}, title), note ? el('p', {id: 'dialog-note'}, note) : null,
           el('label', {for: 'dialog-input'}, label), input,
           el('div', {class: 'row end'}, el('button', {type: 'button', class: 'button', onclick: () => dialog.close()}, 'Cancel'),
              el('button', {type: 'submit', class: 'button primary'}, ok))));
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
    input.select();
  });
}

export function showDialog(title, ...children) {
  const dialog = el('dialog', {'aria-labelledby': 'dialog-title', onclose: () => dialog.remove()},
      el('div', {class: 'row between'}, el('h2', {id: 'dialog-title'}, title), iconButton('close', 'Close', () => dialog.close())), ...children);
  document.body.append(dialog);
  dialog.showModal();
}

// One at a time, for some seconds; undo makes a button of it.
let clearing = 0;
export function toast(text, undo = null) {
  const place = byId('toasts');
  const clear = () => place.replaceChildren();
  place.replaceChildren(el('div', {class: 'toast'}, el('span', {}, text),
      undo ? el('button', {type: 'button', class: 'quiet-button', onclick: () => { clear(); undo(); }}, 'Undo') : null,
      iconButton('close', 'Dismiss', clear, {class: 'icon-button small'})));
  clearTimeout(clearing);
  clearing = setTimeout(clear, undo ? 12000 : 6000);
}
