// The list of chats at the side: choose, rename, delete, and to and from a file.
import {el, iconButton} from './dom.js';

// handlers: onOpen(id), onRename(id), onDelete(id)
export function drawChatList(root, chats, {current, isRunning}, handlers) {
  root.replaceChildren(...groups(chats).map(([name, members]) =>
    el('section', {class: 'chat-group'}, el('h3', {}, name),
       el('ul', {}, ...members.map((chat) =>
         el('li', {class: chat.id === current ? 'chat current' : 'chat'},
            el('button', {type: 'button', class: 'chat-open', dir: 'auto', 'aria-current': chat.id === current ? 'page' : null, title: chat.title,
                          onclick: () => handlers.onOpen(chat.id)},
               isRunning(chat.id) ? el('span', {class: 'running-dot', role: 'img', 'aria-label': 'being answered'}) : null,
               el('span', {class: 'chat-title'}, chat.title)),
            el('span', {class: 'chat-actions'},
               iconButton('edit', `Rename ${chat.title}`, () => handlers.onRename(chat.id), {class: 'icon-button small'}),
               iconButton('trash', `Delete ${chat.title}`, () => handlers.onDelete(chat.id), {class: 'icon-button small'}))))))));
  if (!chats.length) root.append(el('p', {class: 'note'}, 'Chats are kept in this browser only.'));
}

function groups(chats) {
  const today = new Date().setHours(0, 0, 0, 0);
  const day = 24 * 3600 * 1000;
  const name = (time) => (time >= today ? 'Today' : time >= today - day ? 'Yesterday' : time >= today - 7 * day ? 'Last seven days' : 'Older');
  const found = new Map();
  for (const chat of chats) {
    const group = name(chat.updated);
    if (!found.has(group)) found.set(group, []);
    found.get(group).push(chat);
  }
  return [...found];
}

export function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
  el('a', {href: address, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export function chooseFile(onText) {
  const input = el('input', {type: 'file', accept: 'application/json,.json', onchange: async () => {
    const file = input.files[0];
    if (file) onText(await file.text());
  }});
  input.click();
}

export function emptyState(model) {
  return el('div', {class: 'empty'}, el('img', {src: 'page/icon.svg', alt: '', width: 48, height: 48}),
            el('p', {class: 'empty-title'}, 'What would you like to know?'), el('p', {class: 'note'}, model ? `${model} answers.` : ''));
}
