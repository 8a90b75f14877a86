// Puts the parts of the page together: chats at the left, the conversation, settings and the engine at the right.
import {Announcer} from './announcer.js';
import {apiKey, models, setApiKey} from './api.js';
import {chooseFile, download, drawChatList} from './chat_list.js';
import {askText, showDialog, toast} from './dialogs.js';
import {byId, el, icon} from './dom.js';
import {buildEngine} from './engine.js';
import {buildSettings, chooseModel, chosenModel, defaultSystem, setTheme} from './settings.js';
import {deleteChat, exportChats, importChats, isChatKey, listChats, loadChat, newChat} from './store.js';
import {Thread} from './thread.js';

const model = byId('model');
const message = byId('message');
const send = byId('send');
const title = byId('title');
const narrow = matchMedia('(max-width: 820px)');     // the list of chats is a drawer
const compact = matchMedia('(max-width: 1180px)');   // so is the panel
const touch = matchMedia('(hover: none) and (pointer: coarse)');
const mac = /Mac|iPhone|iPad/.test(navigator.platform ?? '');

for (const place of document.querySelectorAll('[data-icon]')) place.prepend(icon(place.dataset.icon));

// --- the key

// Resolves to whether there is a key that the server takes now. One question at a time, whoever asks.
let asking = null;
function askKey() {
  asking ??= (async () => {
    for (let refused = false;; refused = true) {
      const key = await askText({title: refused ? 'This key was refused' : 'API key', label: 'Key', type: 'password', ok: 'Use this key', value: apiKey(),
                                 note: 'This server asks for a key. It is kept until this tab closes and sent to this server only.'});
      if (key === null) return false;
      setApiKey(key.trim());
      if ((await readModels({ask: false})) !== 'key') return true;
    }
  })().finally(() => { asking = null; });
  return asking;
}

// --- models

// Resolves to what stood in the way ('key', 'network', ...), or ''.
async function readModels({ask = true} = {}) {
  let trouble = '';
  try {
    const names = await models();
    const chosen = chosenModel();
    model.replaceChildren(...names.map((name) => el('option', {value: name}, name)));
    if (!names.length) model.append(el('option', {value: ''}, 'no model'));
    if (names.includes(chosen)) model.value = chosen;
    model.disabled = names.length === 0;
    model.title = model.value;
  } catch (error) {
    model.replaceChildren(el('option', {value: chosenModel()}, chosenModel() || (error.kind === 'key' ? 'key needed' : 'no connection')));
    model.disabled = true;
    trouble = error.kind ?? 'server';
    if (trouble === 'key' && ask) askKey();
    else if (trouble !== 'key') setTimeout(() => readModels({ask: false}), 5000);
  }
  thread.drawEmptyAgain();
  return trouble;
}
model.addEventListener('change', () => {
  chooseModel(model.value);
  model.title = model.value;
  thread.drawEmptyAgain();
});

// --- the chat that is shown

const announcer = new Announcer(byId('announcer'));
const thread = new Thread({model: () => model.value, changed, askKey, announcer});
const drafts = new Map();  // what was being written, by chat

function changed() {
  drawList();
  const running = thread.running !== null;
  send.replaceChildren(icon(running ? 'stop' : 'send'));
  send.classList.toggle('stopping', running);
  send.setAttribute('aria-label', running ? 'Stop the answer' : 'Send');
  send.title = running ? 'Stop (Esc)' : 'Send (Enter)';
  sendable();
  title.textContent = thread.chat.title;
  document.title = thread.chat.messages.length ? `${thread.chat.title} – cairn` : 'cairn';
}

function sendable() {
  send.disabled = thread.running === null && message.value.trim() === '';
}

const chatListHandlers = {onOpen: open, onRename: rename, onDelete: remove};
function drawList() {
  const focused = document.activeElement?.closest?.('#chats') ? document.activeElement.getAttribute('aria-label') ?? document.activeElement.title : null;
  drawChatList(byId('chats'), listChats(), {current: thread.chat.id, isRunning: (id) => thread.isRunning(id)}, chatListHandlers);
  if (focused)
    [...byId('chats').querySelectorAll('button')].find((button) => (button.getAttribute('aria-label') ?? button.title) === focused)?.focus();
}

const live = new Map();  // chats that are being answered must stay the same objects
function show(chat) {
  if (thread.chat) {
    drafts.set(thread.chat.id, message.value);
    if (thread.isRunning(thread.chat.id)) live.set(thread.chat.id, thread.chat);
  }
  thread.show(chat);
  message.value = drafts.get(chat.id) ?? '';
  grow();
  history.replaceState(null, '', chat.messages.length ? `#chat=${chat.id}` : location.pathname + location.search);
  settings.show();
  changed();
}

function open(id) {
  if (id !== thread.chat.id) {
    const chat = thread.isRunning(id) ? live.get(id) : loadChat(id);
    if (!chat) {
      toast('This chat is no longer here');
      drawList();
      return;
    }
    show(chat);
  }
  drawer(false);
  if (!touch.matches) message.focus();
}

function startNew() {
  show(newChat(defaultSystem()));
  drawer(false);
  message.focus();
}

async function rename(id) {
  const chat = id === thread.chat.id ? thread.chat : thread.isRunning(id) ? live.get(id) : loadChat(id);
  if (!chat) return;
  const name = (await askText({title: 'Rename chat', label: 'Name', value: chat.title, ok: 'Rename'}))?.trim();
  if (!name) return;
  chat.title = name.slice(0, 200);
  chat.named = true;
  thread.save(chat);
  changed();
}

function remove(id) {
  const chat = id === thread.chat.id ? thread.chat : thread.isRunning(id) ? live.get(id) : loadChat(id);
  if (!chat) return;
  thread.stopChat(id);
  chat.deleted = true;  // a run that is ending may not bring it back
  deleteChat(id);
  if (id === thread.chat.id) show(newChat(defaultSystem()));
  else drawList();
  toast(`“${chat.title}” was deleted`, () => {
    delete chat.deleted;
    thread.save(chat);
    drawList();
  });
}

// --- writing

function grow() {
  message.style.blockSize = 'auto';
  message.style.blockSize = `${message.scrollHeight}px`;
}

function submit() {
  const text = message.value.trim();
  if (thread.running || text === '') return;
  try {
    thread.send(text);
  } catch (error) {
    toast(error.message);
    return;
  }
  message.value = '';
  drafts.delete(thread.chat.id);
  grow();
  sendable();
  history.replaceState(null, '', `#chat=${thread.chat.id}`);
}

byId('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  if (thread.running) thread.stop();
  else submit();
});
message.addEventListener('input', () => { grow(); sendable(); });
message.addEventListener('keydown', (event) => {
  if (event.isComposing) return;
  // On a touch keyboard there is no Shift+Enter at hand: Enter breaks the line, the button sends.
  if (event.key === 'Enter' && !event.shiftKey && (!touch.matches || event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    submit();
  }
  if (event.key === 'ArrowUp' && message.value === '') {
    event.preventDefault();
    thread.editLast();
  }
});

// --- the drawer and the panel

const sidebar = byId('sidebar'), panel = byId('panel'), main = byId('main'), shade = byId('shade');
let opener = null;

function cover() {  // what lies under an open drawer or panel is out of reach
  const drawerOpen = narrow.matches && sidebar.classList.contains('open');
  const panelOpen = compact.matches && !panel.hidden;
  main.inert = drawerOpen || panelOpen;
  sidebar.inert = (narrow.matches && !drawerOpen) || panelOpen;
  panel.inert = drawerOpen;
  shade.hidden = !main.inert;
}

function drawer(wanted) {
  const was = sidebar.classList.contains('open');
  sidebar.classList.toggle('open', wanted);
  byId('open-chats').setAttribute('aria-expanded', String(wanted));
  cover();
  if (wanted && narrow.matches) byId('new-chat').focus();
  else if (was && narrow.matches) byId('open-chats').focus();
}

const settings = buildSettings(byId('settings'), {
  chat: () => thread.chat,
  changed: () => thread.save(thread.chat),
  keyChanged: () => readModels({ask: false}),
});
const engine = buildEngine(byId('engine'), {onKey: async () => { await askKey(); }});

function showPanel(name) {  // 'settings', 'engine' or null
  const before = panel.hidden ? null : panel.dataset.shown;
  if (name === before) name = null;
  panel.hidden = name === null;
  panel.dataset.shown = name ?? '';
  byId('panel-title').textContent = name === 'engine' ? 'Engine' : 'Settings';
  for (const part of ['settings', 'engine']) {
    byId(part).hidden = part !== name;
    byId(`open-${part}`).setAttribute('aria-expanded', String(part === name));
  }
  if (name === 'engine') engine.start();
  else engine.stop();
  if (name === 'settings') settings.show();
  cover();
  if (name) {
    opener = document.activeElement === document.body ? null : document.activeElement;
    byId('close-panel').focus();
  } else if (before) {
    (opener?.isConnected ? opener : message).focus();
  }
}

byId('open-chats').addEventListener('click', () => drawer(true));
byId('close-chats').addEventListener('click', () => drawer(false));
byId('new-chat').addEventListener('click', startNew);
byId('new-chat-top').addEventListener('click', startNew);
byId('open-settings').addEventListener('click', () => showPanel('settings'));
byId('open-engine').addEventListener('click', () => showPanel('engine'));
byId('close-panel').addEventListener('click', () => showPanel(null));
shade.addEventListener('click', () => { drawer(false); if (!panel.hidden) showPanel(null); });
narrow.addEventListener('change', cover);
compact.addEventListener('change', cover);

// --- files, colours, help

byId('export').addEventListener('click', () => {
  const chats = listChats().map(({id}) => loadChat(id)).filter(Boolean);
  if (!chats.length) toast('There is nothing to export yet');
  else download(`cairn-chats-${new Date().toISOString().slice(0, 10)}.json`, exportChats(chats));
});
byId('import').addEventListener('click', () => chooseFile((text) => {
  try {
    const chats = importChats(text);
    chats.forEach((chat) => thread.save(chat));
    drawList();
    toast(`${chats.length} chat${chats.length > 1 ? 's' : ''} imported`);
  } catch (error) {
    toast(`Not imported: ${error.message}`);
  }
}));

const themeButton = byId('theme');
function drawTheme() {
  const dark = document.documentElement.dataset.theme === 'dark';
  themeButton.replaceChildren(icon(dark ? 'sun' : 'moon'));
  themeButton.setAttribute('aria-label', dark ? 'Light colours' : 'Dark colours');
  themeButton.title = dark ? 'Light colours' : 'Dark colours';
}
themeButton.addEventListener('click', () => setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'));
new MutationObserver(drawTheme).observe(document.documentElement, {attributeFilter: ['data-theme']});
drawTheme();

const ctrl = mac ? '⌘' : 'Ctrl';
function help() {
  const keys = [['Enter', 'send'], ['Shift + Enter', 'new line'], ['Esc', 'stop the answer; close what is open'], [`${ctrl} + K`, 'new chat'],
                ['/', 'to the message box'], ['Arrow up', 'edit the last message, from an empty box'], ['?', 'this list']];
  showDialog('Keys', el('dl', {class: 'keys'}, ...keys.map(([key, does]) => el('div', {}, el('dt', {}, el('kbd', {}, key)), el('dd', {}, does)))));
}
byId('help').addEventListener('click', help);

addEventListener('keydown', (event) => {
  if (event.isComposing || document.querySelector('dialog[open]')) return;
  const writing = event.target.matches?.('input, textarea, select');
  if (event.key === 'k' && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey) {
    event.preventDefault();
    startNew();
  } else if (event.key === 'Escape') {
    if (sidebar.classList.contains('open') && narrow.matches) drawer(false);
    else if (!panel.hidden && compact.matches) showPanel(null);
    else if (thread.running) thread.stop();
    else if (!panel.hidden && panel.contains(document.activeElement)) showPanel(null);
  } else if (event.key === '/' && !writing) {
    event.preventDefault();
    message.focus();
  } else if (event.key === '?' && !writing) {
    help();
  }
});

// Another tab of this page wrote or removed a chat.
addEventListener('storage', (event) => {
  if (event.key === null || isChatKey(event.key)) drawList();
});

const wanted = /^#chat=([a-z0-9]+)$/.exec(location.hash);
show((wanted && loadChat(wanted[1])) || newChat(defaultSystem()));
cover();
readModels();
if (!touch.matches) message.focus();
