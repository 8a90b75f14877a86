// Conversations, kept in this browser only (localStorage): one entry each under cairn.chat.<id>, so that saving one
// does not write the others again.
//
//   chat:      {id, title, named, created, updated, system, messages}
//   message:   {role: 'user', content} | {role: 'tool', tool_call_id, name, content} |
//              {role: 'assistant', answers: [answer], shown}      answers: what "regenerate" gave, the shown one counts
//   answer:    {content, reasoning, toolCalls: [{id, name, arguments}], model, finish, stats, error}
//   stats:     {promptTokens, cachedTokens, answerTokens, firstSeconds, seconds, reasoningSeconds, counted}
const kPrefix = 'cairn.chat.';

export class StoreFull extends Error {}

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(9));  // randomUUID needs https; this does not
  return [...bytes].map((b) => b.toString(36).padStart(2, '0')).join('');
}

export function newChat(system = '') {
  const now = Date.now();
  return {id: newId(), title: 'New chat', named: false, created: now, updated: now, system, messages: []};
}

export function newAnswer(model) {
  return {content: '', reasoning: '', toolCalls: [], model, finish: '', stats: null, error: null};
}

export const shownAnswer = (message) => message.answers[message.shown];

// Newest first. An entry that cannot be read is left alone and not listed.
export function listChats() {
  const chats = [];
  try {
    for (let i = 0; i < localStorage.length; ++i) {
      const key = localStorage.key(i);
      if (!key.startsWith(kPrefix)) continue;
      const chat = loadChat(key.slice(kPrefix.length));
      if (chat) chats.push({id: chat.id, title: chat.title, updated: chat.updated});
    }
  } catch {  // no storage: chats live as long as the page
  }
  return chats.sort((a, b) => b.updated - a.updated);
}

export function loadChat(id) {
  try {
    return checkedChat(JSON.parse(localStorage.getItem(kPrefix + id)), id);
  } catch {
    return null;
  }
}

// Throws StoreFull when the browser has no room; the chat stays usable in memory.
export function saveChat(chat) {
  try {
    localStorage.setItem(kPrefix + chat.id, JSON.stringify(chat));
  } catch (error) {
    throw new StoreFull(error.message);
  }
}

export function deleteChat(id) {
  try {
    localStorage.removeItem(kPrefix + id);
  } catch {  // was never stored
  }
}

export const isChatKey = (key) => key !== null && key.startsWith(kPrefix);

// The first words of the first message name a chat until somebody renames it.
export function titleFrom(text) {
  const line = text.trim().split('\n')[0].replace(/\s+/g, ' ').slice(0, 200);
  if (line.length <= 60) return line || 'New chat';
  const cut = line.slice(0, 60);
  return `${cut.slice(0, Math.max(cut.lastIndexOf(' '), 40))}…`;
}

export function exportChats(chats) {
  return JSON.stringify({format: 'cairn-chats', chats}, null, 1);
}

// The chats of an exported file, each under a fresh id: nothing that is here is overwritten. Throws Error in words.
export function importChats(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch (error) {
    throw new Error(`this file is not JSON (${error.message})`);
  }
  if (file?.format !== 'cairn-chats' || !Array.isArray(file.chats)) throw new Error('this is not a file of chats exported here');
  const chats = file.chats.map((chat, i) => {
    const checked = checkedChat(chat, newId());
    if (!checked) throw new Error(`chat ${i + 1} of ${file.chats.length} is damaged; nothing was imported`);
    return checked;
  });
  if (!chats.length) throw new Error('there is no chat in this file');
  return chats;
}

// Stored and imported data may have been written by anything: only known fields of the right kind are taken.
function checkedChat(chat, id) {
  if (typeof chat !== 'object' || chat === null || !Array.isArray(chat.messages)) return null;
  const messages = chat.messages.map(checkedMessage);
  if (messages.includes(null)) return null;
  return {id, title: string(chat.title).slice(0, 200) || 'New chat', named: chat.named === true, created: number(chat.created) ?? Date.now(),
          updated: number(chat.updated) ?? Date.now(), system: string(chat.system), messages};
}

function checkedMessage(message) {
  switch (message?.role) {
    case 'user':
      return {role: 'user', content: string(message.content)};
    case 'tool':
      return {role: 'tool', tool_call_id: string(message.tool_call_id), name: string(message.name), content: string(message.content)};
    case 'assistant': {
      if (!Array.isArray(message.answers) || !message.answers.length) return null;
      const answers = message.answers.map(checkedAnswer);
      const shown = Math.trunc(number(message.shown) ?? 0);
      return {role: 'assistant', answers, shown: Math.min(Math.max(shown, 0), answers.length - 1)};
    }
    default:
      return null;
  }
}

function checkedAnswer(answer) {
  const calls = Array.isArray(answer?.toolCalls) ? answer.toolCalls : [];
  const stats = typeof answer?.stats === 'object' && answer.stats ? answer.stats : null;
  const error = typeof answer?.error === 'object' && answer.error ? answer.error : null;
  return {
    content: string(answer?.content), reasoning: string(answer?.reasoning), model: string(answer?.model), finish: string(answer?.finish),
    toolCalls: calls.map((c) => ({id: string(c?.id), name: string(c?.name), arguments: string(c?.arguments)})),
    stats: stats && Object.fromEntries(['promptTokens', 'cachedTokens', 'answerTokens', 'firstSeconds', 'seconds', 'reasoningSeconds']
        .map((name) => [name, number(stats[name])]).concat([['counted', stats.counted === true]])),
    error: error && {kind: string(error.kind), title: string(error.title), message: string(error.message), hint: string(error.hint),
                     requestId: string(error.requestId)},
  };
}

const string = (value) => (typeof value === 'string' ? value : '');
const number = (value) => (typeof value === 'number' && Number.isFinite(value) ? value : null);

// What the model is sent: reasoning is not (models are trained to see past answers without it), nor are empty answers
// or those that failed before they began.
export function requestMessages(chat) {
  const sent = [];
  if (chat.system.trim()) sent.push({role: 'system', content: chat.system});
  for (const message of chat.messages) {
    if (message.role === 'user') sent.push({role: 'user', content: message.content});
    if (message.role === 'tool') sent.push({role: 'tool', tool_call_id: message.tool_call_id, content: message.content});
    if (message.role !== 'assistant') continue;
    const {content, toolCalls} = shownAnswer(message);
    if (!content && !toolCalls.length) continue;
    const made = {role: 'assistant', content: content || null};
    if (toolCalls.length)
      made.tool_calls = toolCalls.map((c) => ({id: c.id, type: 'function', function: {name: c.name, arguments: c.arguments}}));
    sent.push(made);
  }
  return sent;
}
