// The conversation that is shown: sends, stops, asks again, and keeps the end in view while text arrives. A run goes
// on when another chat is shown, and is picked up again when its chat comes back.
import {emptyState} from './chat_list.js';
import {byId} from './dom.js';
import {AnswerView, toolMessage, userMessage} from './messages.js';
import {Run} from './run.js';
import {requestFields} from './settings.js';
import {newAnswer, requestMessages, saveChat, shownAnswer, StoreFull, titleFrom} from './store.js';
import {toast} from './dialogs.js';

const kSaveEveryMs = 2000;

export class Thread {
  #list = byId('messages');
  #scroller = byId('thread');
  #latest = byId('latest');
  #views = [];
  #runs = new Map();  // by chat id
  #stick = true;
  #storeFull = false;

  // hooks: model(), changed() (the list of chats or the state of runs), askKey() -> Promise<bool>, announcer
  constructor(hooks) {
    this.hooks = hooks;
    this.#scroller.addEventListener('scroll', () => {
      const {scrollTop, scrollHeight, clientHeight} = this.#scroller;
      this.#stick = scrollHeight - scrollTop - clientHeight < 60;
      this.#latest.hidden = this.#stick;
    }, {passive: true});
    this.#latest.addEventListener('click', () => this.#toEnd());
    new ResizeObserver(() => this.#follow()).observe(this.#scroller);
    // What is on the way is kept when the page goes.
    addEventListener('pagehide', () => this.#runs.forEach((run) => this.save(run.chat)));
  }

  isRunning(id) {
    return this.#runs.has(id);
  }

  get running() {
    return this.#runs.get(this.chat.id) ?? null;
  }

  show(chat) {
    this.#leave();
    this.chat = chat;
    this.#list.replaceChildren();
    this.#views = chat.messages.map((message, index) => this.#add(message, index));
    this.#drawEmpty();
    this.#toEnd();
  }

  drawEmptyAgain() {
    if (!this.chat.messages.length) this.#drawEmpty();
  }

  #drawEmpty() {
    this.#list.parentElement.querySelector('.empty')?.remove();
    if (!this.chat.messages.length) this.#list.before(emptyState(this.hooks.model()));
  }

  #leave() {
    for (const view of this.#views) view?.leave?.();
    this.#views = [];
  }

  #add(message, index) {
    let view = null, element;
    if (message.role === 'user') {
      element = userMessage(message, {onEdit: (text) => this.#edit(index, text)});
    } else if (message.role === 'tool') {
      element = toolMessage(message);
    } else {
      view = new AnswerView(message, {
        onRegenerate: () => this.#regenerate(index),
        onShow: (shown) => this.#choose(index, shown),
        onToolResults: (results) => { this.#push(...results); this.#answer(); },
        onDrawn: () => this.#follow(),
        onKey: async () => { if (await this.hooks.askKey()) this.#retry(index); },
        onRetry: () => this.#retry(index),
      });
      const isLast = () => index === this.chat.messages.length - 1;
      const run = this.#runs.get(this.chat.id);
      if (run && run.answer === shownAnswer(message)) view.attach(run, isLast);
      else view.draw(isLast());
      element = view.element;
    }
    this.#list.append(element);
    return view;
  }

  #push(...messages) {
    this.#list.parentElement.querySelector('.empty')?.remove();
    for (const message of messages) {
      this.chat.messages.push(message);
      this.#views.push(this.#add(message, this.chat.messages.length - 1));
    }
  }

  // Throws Error in words when the settings do not allow it.
  send(text) {
    requestFields();
    if (!this.chat.messages.length && !this.chat.named) this.chat.title = titleFrom(text);
    this.#push({role: 'user', content: text});
    this.#answer();
  }

  stop() {
    this.running?.stop();
  }

  stopChat(id) {
    this.#runs.get(id)?.stop();
  }

  #answer() {
    if (this.running) return;
    const answer = newAnswer(this.hooks.model());
    const before = requestMessages(this.chat);
    this.#run(answer, before, () => this.#push({role: 'assistant', answers: [answer], shown: 0}));
  }

  // Another answer to the same question; the earlier one stays beside it.
  #regenerate(index) {
    if (this.running) return;
    const message = this.chat.messages[index];
    const answer = newAnswer(this.hooks.model());
    const before = requestMessages({...this.chat, messages: this.chat.messages.slice(0, index)});
    this.#run(answer, before, () => {
      this.#cut(index + 1, 'What came after this answer was removed');
      message.answers.push(answer);
      message.shown = message.answers.length - 1;
      this.#redraw(index);
    });
  }

  // The failed answer is replaced.
  #retry(index) {
    if (this.running) return;
    const message = this.chat.messages[index];
    const answer = newAnswer(this.hooks.model());
    const before = requestMessages({...this.chat, messages: this.chat.messages.slice(0, index)});
    this.#run(answer, before, () => {
      message.answers[message.shown] = answer;
      this.#redraw(index);
    });
  }

  #edit(index, text) {
    if (this.running) {
      toast('Wait for the answer, or stop it, before you edit');
      return;
    }
    try {
      requestFields();
    } catch (error) {
      toast(error.message);
      return;
    }
    this.#cut(index, 'Your message was replaced');
    if (index === 0 && !this.chat.named) this.chat.title = titleFrom(text);
    this.#push({role: 'user', content: text});
    this.#answer();
  }

  editLast() {
    const items = this.#list.querySelectorAll('.message.user');
    if (items.length && !this.running) items[items.length - 1].startEdit();
  }

  // Removes the messages from index on, with a way back.
  #cut(index, said) {
    const {chat} = this;
    if (index >= chat.messages.length) return;
    const kept = {messages: structuredClone(chat.messages), title: chat.title};
    chat.messages.length = index;
    for (const view of this.#views.splice(index)) view?.leave?.();
    while (this.#list.childElementCount > index) this.#list.lastElementChild.remove();
    toast(said, () => {
      this.#runs.get(chat.id)?.stop();
      chat.messages = kept.messages;
      chat.title = kept.title;
      this.save(chat);
      if (this.chat === chat) this.show(chat);
      this.hooks.changed();
    });
  }

  #choose(index, shown) {
    if (this.running) return;
    this.chat.messages[index].shown = shown;
    this.save(this.chat);
    this.#redraw(index);
  }

  #redraw(index) {
    this.#views[index]?.leave?.();
    const old = this.#list.children[index];
    this.#views[index] = this.#add(this.chat.messages[index], index);
    old.replaceWith(this.#list.lastElementChild);
  }

  #run(answer, messages, show) {
    const {chat} = this;
    let fields;
    try {
      fields = requestFields();
    } catch (error) {
      toast(error.message);
      return;
    }
    const body = {model: this.hooks.model() || undefined, messages, stream: true, stream_options: {include_usage: true}, ...fields};
    const run = new Run(chat, answer, body);
    this.#runs.set(chat.id, run);
    show();
    chat.updated = Date.now();
    this.#toEnd();
    let saved = performance.now();
    this.save(chat);
    const {announcer} = this.hooks;
    announcer.say('The answer begins.');
    run.watch((kind, heard) => {
      if (kind !== 'piece') return;
      if (this.chat === chat) announcer.add(heard.content);
      if (performance.now() - saved > kSaveEveryMs) {
        saved = performance.now();
        this.save(chat);
      }
    });
    this.hooks.changed();
    run.go().then(() => {
      this.#runs.delete(chat.id);
      this.save(chat);
      if (this.chat === chat) announcer.end(answer.error ? '' : answer.finish === 'stopped' ? 'Stopped.' : 'The answer is complete.');
      this.hooks.changed();
      if (answer.error?.kind === 'key' && this.chat === chat) this.#afterKey(chat, answer);
    });
  }

  async #afterKey(chat, answer) {
    if (!(await this.hooks.askKey()) || this.chat !== chat) return;
    const index = chat.messages.findIndex((message) => message.role === 'assistant' && shownAnswer(message) === answer);
    if (index >= 0) this.#retry(index);
  }

  save(chat) {
    if (!chat.messages.length && !chat.named) return;  // nothing worth keeping yet
    if (chat.deleted) return;
    try {
      saveChat(chat);
      this.#storeFull = false;
    } catch (error) {
      if (!(error instanceof StoreFull)) throw error;
      if (!this.#storeFull) toast('The browser has no room left for chats: export or delete some. This one is not being saved.');
      this.#storeFull = true;
    }
  }

  #follow() {
    if (this.#stick) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #toEnd() {
    this.#stick = true;
    this.#latest.hidden = true;
    this.#follow();
  }
}
